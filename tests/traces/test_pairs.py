"""Which pairs a trace gives: those that a person or a verifier is sure of, and none of equals."""

import json
from typing import Any

import pytest

from service.traces.formats import FORMATS
from service.traces.pairs import MOST_PAIRS, Pair, find_pairs
from service.traces.store import WholeTrace
from tests.support.stored_traces import WAVES, candidate, judged, make_document, verified, with_feedback

TRUSTED = {"level": "drive", "share": 0.9, "source": "calibrated"}


def pairs(*candidates: dict[str, Any], **fields: Any) -> list[tuple[str, str, str]]:
    """The source of each pair, and its two texts."""
    return shown(with_feedback(make_document(candidates, **fields)))


def shown(whole: WholeTrace) -> list[tuple[str, str, str]]:
    return [(pair.source, pair.chosen, pair.rejected) for pair in find_pairs(whole)]


def good(text: str = "Salt.", its_id: str = "c0", **fields: Any) -> dict[str, Any]:
    return candidate(its_id, text, verified(1.0), **fields)


def bad(text: str = "Waves.", its_id: str = "c1", **fields: Any) -> dict[str, Any]:
    return candidate(its_id, text, verified(0.0), **fields)


def test_a_text_that_passes_is_better_than_one_that_does_not() -> None:
    assert pairs(good(), bad()) == [("verifiers", "Salt.", "Waves.")]


@pytest.mark.parametrize(
    "candidates",
    [
        (good(), good("Salty.", "c1")),
        (bad(), bad("Foam.", "c2")),
        (good("Waves."), bad(" Waves.\n")),
        (good(finish_reason="length"), bad()),
        (good(), bad(finish_reason="deadline")),
        (good(""), bad()),
        (good(), bad("")),
        (good(), candidate("c1", "Waves.", verified(0.0), verified(0.0, error="away"))),
        (good(), candidate("c1", "Waves.")),
        (candidate("c0", "Salt."), candidate("c1", "Waves.")),
    ],
    ids=["both pass", "both fail", "equal", "cut", "rejected is cut", "empty", "rejected is empty", "evaluator failed",
         "not evaluated", "none evaluated"],
)  # fmt: skip
def test_no_pair_where_nothing_is_known(candidates: tuple[dict[str, Any], ...]) -> None:
    assert pairs(*candidates) == []


def test_no_pair_for_a_prompt_with_images() -> None:
    assert pairs(good(), bad(), prompts=[[{**WAVES[0], "images": 1}]]) == []


@pytest.mark.parametrize(("lower", "expected"), [(0.5, 1), (0.79, 1), (0.85, 0), (1.0, 0)])
def test_soft_verifiers_count_where_they_differ_clearly(lower: float, expected: int) -> None:
    candidates = [
        candidate("c0", "Salt.", verified(1.0), verified(1.0, hard=False)),
        candidate("c1", "Waves.", verified(1.0), verified(lower, hard=False)),
    ]
    assert len(pairs(*candidates)) == expected


def test_a_text_that_fails_is_never_the_better_one() -> None:
    halves = [candidate("c0", "Salt.", verified(0.9)), candidate("c1", "Waves.", verified(0.1))]
    assert pairs(*halves) == []


@pytest.mark.parametrize(
    ("score", "stderr", "trust", "expected"),
    [
        (0.9, 0.02, TRUSTED, 1),
        (0.65, 0.02, TRUSTED, 0),
        (0.9, 0.2, TRUSTED, 0),
        (0.9, 0.02, {**TRUSTED, "level": "none"}, 0),
    ],
    ids=["clear", "close", "unsure", "not trusted"],
)
def test_a_judge_counts_where_it_is_trusted_and_sure(
    score: float, stderr: float, trust: dict[str, Any], expected: int
) -> None:
    found = pairs(
        candidate("c0", "Salt.", judged(score, stderr)),
        candidate("c1", "Waves.", judged(0.5, stderr)),
        judge_trust=trust,
    )
    assert [source for source, _, _ in found] == ["judge"] * expected


@pytest.mark.parametrize(("reason", "expected"), [("stop", 1), ("landed", 0)])
def test_a_judge_does_not_make_a_text_that_landed_better_than_a_complete_one(reason: str, expected: int) -> None:
    found = pairs(
        candidate("c0", "Salt.", judged(0.9, 0.02), finish_reason=reason),
        candidate("c1", "Waves.", judged(0.5, 0.02)),
        judge_trust=TRUSTED,
    )
    assert len(found) == expected


def test_among_complete_texts_the_judge_still_tells_the_better_one_next_to_one_that_landed() -> None:
    found = pairs(
        candidate("c0", "Salt.", judged(0.9, 0.02), finish_reason="landed"),
        candidate("c1", "Waves.", judged(0.6, 0.02)),
        candidate("c2", "Foam.", judged(0.1, 0.02)),
        judge_trust=TRUSTED,
    )
    assert found == [("judge", "Waves.", "Foam.")]


def test_a_complete_text_that_is_judged_better_too_makes_a_pair_with_one_that_landed() -> None:
    found = pairs(
        candidate("c0", "Salt.", judged(0.9, 0.02)),
        candidate("c1", "Waves.", judged(0.5, 0.02), finish_reason="landed"),
        judge_trust=TRUSTED,
    )
    assert found == [("judge", "Salt.", "Waves.")]


def test_that_a_text_is_complete_alone_makes_no_pair() -> None:
    found = pairs(
        candidate("c0", "Salt.", verified(1.0)),
        candidate("c1", "Waves.", verified(1.0), finish_reason="landed"),
    )
    assert found == []


def test_a_revision_and_its_siblings_come_before_other_texts_and_all_are_bounded() -> None:
    candidates = [
        bad("Waves.", "c0"),
        bad("Foam.", "c1", round=1),
        good("Salt.", "c2", round=1, parent="c0"),
        *(bad(f"Water {number}.", f"c{number}") for number in range(3, 9)),
    ]
    found = find_pairs(with_feedback(make_document(candidates)))

    assert len(found) == MOST_PAIRS
    assert [(pair.rejected, pair.relation) for pair in found[:3]] == [
        ("Waves.", "revision"),
        ("Foam.", "siblings"),
        ("Water 3.", "other"),
    ]
    assert found[0].broken_rules == ["Use salt."]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([("edit", "c0", "Salty waves.")], [("edit", "Salty waves.", "Salt.")]),
        ([("edit", "c0", " Salt. ")], []),
        ([("choice", "c1", ["c0"])], [("choice", "Waves.", "Salt.")]),
        ([("thumb", "c1", "up"), ("thumb", "c0", "down")], [("thumb", "Waves.", "Salt.")]),
        ([("thumb", "c1", "up"), ("thumb", "c0", "up")], []),
        ([("thumb", "c1", "up")], []),
        ([("score", "c1", 0.9), ("score", "c0", 0.2)], [("score", "Waves.", "Salt.")]),
        ([("score", "c1", 0.9), ("score", "c0", 0.8)], []),
    ],
)
def test_feedback_makes_pairs(given: Any, expected: list[tuple[str, str, str]]) -> None:
    document = make_document([candidate("c0", "Salt."), candidate("c1", "Waves.")])
    assert shown(with_feedback(document, *given)) == expected


def test_no_pair_is_of_two_prompts() -> None:
    two = [candidate("0.0", "Salt."), candidate("1.0", "Waves.", prompt=1)]
    document = make_document(two, prompts=[WAVES, WAVES])
    assert shown(with_feedback(document, ("thumb", "0.0", "up"), ("thumb", "1.0", "down"))) == []


def test_a_person_outweighs_the_evaluators() -> None:
    document = make_document([good(), bad()])
    assert shown(with_feedback(document, ("choice", "c1", ["c0"]))) == [("choice", "Waves.", "Salt.")]
    assert shown(with_feedback(document, ("thumb", "c0", "down"))) == []


PAIR = Pair(
    prompt=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Write about waves."}],
    chosen="Salt.",
    rejected="Waves.",
    source="verifiers",
    relation="revision",
    program="ref-1",
    task="general",
    model="m",
    chosen_id="c1",
    rejected_id="c0",
    broken_rules=["Use salt."],
    created="2026-11-29T00:00:00.000+00:00",
)
PROVENANCE = {
    "source": "verifiers",
    "relation": "revision",
    "program": "ref-1",
    "task": "general",
    "model": "m",
    "chosen": "c1",
    "rejected": "c0",
    "broken_rules": ["Use salt."],
    "created_at": "2026-11-29T00:00:00.000+00:00",
}


def test_formats() -> None:
    lines = {name: json.loads(json.dumps(write(PAIR))) for name, write in FORMATS.items()}

    assert lines == {
        "trl": {
            "prompt": PAIR.prompt,
            "chosen": [{"role": "assistant", "content": "Salt."}],
            "rejected": [{"role": "assistant", "content": "Waves."}],
            "provenance": PROVENANCE,
        },
        "openai": {
            "input": {"messages": PAIR.prompt},
            "preferred_output": [{"role": "assistant", "content": "Salt."}],
            "non_preferred_output": [{"role": "assistant", "content": "Waves."}],
        },
        "sharegpt": {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Write about waves."},
            ],
            "chosen": {"from": "gpt", "value": "Salt."},
            "rejected": {"from": "gpt", "value": "Waves."},
            "provenance": PROVENANCE,
        },
    }
