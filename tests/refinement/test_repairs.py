"""Repairs: how those of several rules go together, and what becomes of them in a search."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engines.base import Sampling, Usage
from service.evaluators.base import Check, Verifier
from service.evaluators.text.bounds import Bounds
from service.evaluators.text.format import Format
from service.evaluators.text.keywords import Keywords
from service.evaluators.text.length import Length
from service.evaluators.text.passages import EndsWith, StartsWith
from service.refinement.events import CandidateAdded, CandidateEvaluated, RepairEnded
from service.refinement.program import Search
from service.refinement.repairs import Repair, repair
from tests.support.scripts import JUDGE, SALT, Broken, Counted, Lines, engine, events, of_type, program, refined

LOWER, QUOTED = Format(kind="lowercase"), Format(kind="quoted")
MORE = EndsWith(text="is there more?")
HIDDEN = Keywords(include=("hidden",))


def test_repairs_of_several_rules_go_together() -> None:
    assert repair("The Sea.", [QUOTED, LOWER, MORE]) == Repair(
        '"the sea. is there more?"',
        frozenset({"format.quoted", "format.lowercase", "ends_with.text"}),
        frozenset({"format.quoted", "format.lowercase", "ends_with.text"}),
    )


def test_one_that_breaks_another_rule_is_left_out() -> None:
    cased = Keywords(include=("Sea",), case_sensitive=True)
    assert repair("The Sea.", [LOWER, cased, QUOTED]) == Repair(
        '"The Sea."', frozenset({"format.lowercase", "format.quoted"}), frozenset({"format.quoted"})
    )
    assert repair("The Sea.", [LOWER, cased]) == Repair(None, frozenset({"format.lowercase"}))


def test_a_rule_within_a_verifier_that_held_must_hold() -> None:
    rule = Keywords(include=("sea", "foam"), counts={"The": Bounds(min=1)}, case_sensitive=True)
    assert repair("The Sea.", [LOWER, rule]).text is None


def test_a_text_that_passes_or_that_code_cannot_repair_is_not_tried() -> None:
    assert repair("the sea.", [LOWER]) == Repair(None)
    assert repair("The sea.", [SALT]) == Repair(None)


def test_a_repair_may_come_short_of_the_rule() -> None:
    assert repair("The `Sea`.", [LOWER]).text == "the `Sea`."


def test_of_a_text_that_was_cut_the_last_sentence_may_go() -> None:
    assert repair("The sea is wide. The fo", [MORE], unfinished=True).text == "The sea is wide. is there more?"
    assert repair("The sea is wide. The fo", [MORE]).text == "The sea is wide. The fo is there more?"
    longer = Length(unit="words", min=6)
    assert repair("The sea is wide. The fo", [LOWER, longer], unfinished=True).text == "the sea is wide. the fo"


@pytest.mark.parametrize("kept", ['"', "“"])
def test_quotation_marks_around_the_whole_stay(kept: str) -> None:
    text = f"{kept}One two three. Four.{'”' if kept == '“' else kept}"
    repaired = repair(text, [QUOTED, Length(unit="words", max=3), StartsWith(text="Well:")]).text
    assert repaired is None or repaired[0] == kept
    assert repair(text, [QUOTED, Length(unit="words", max=3)]).text == f"{kept}One two three.{text[-1]}"


RULES: Sequence[Verifier] = [
    *(Format(kind=kind) for kind in ("lowercase", "quoted", "single_line", "json", "title", "two_responses")),
    *(Format(kind="bullet_list", max=2), Format(kind="numbered_list"), Format(kind="no_commas")),
    *(Length(unit="words", max=4), Length(unit="sentences", min=2, max=3), Length(unit="paragraphs", max=2)),
    *(StartsWith(text="Dear sea,"), MORE, SALT, Keywords(exclude=("Foam",), case_sensitive=True)),
]
TEXTS = st.lists(
    st.sampled_from(["Salt ", "foam, ", "sea. ", "海。", "\n", "\n\n", "- ", "1. ", '"', "{}", "# ", "---\n", "`X`"]),
    max_size=12,
).map("".join)


@settings(deadline=None)
@given(text=TEXTS, chosen=st.sets(st.integers(0, len(RULES) - 1), min_size=1, max_size=5), cut=st.booleans())
def test_no_rule_that_passes_ever_fails_by_a_repair(text: str, chosen: set[int], cut: bool) -> None:
    rules = [RULES[index] for index in sorted(chosen)]
    repaired = repair(text, rules, unfinished=cut)
    assert repaired.kept <= repaired.tried
    if repaired.text is None:
        return
    scores = [(rule.check(text)[0].score, rule.check(repaired.text)[0].score) for rule in rules]
    assert all(after == 1.0 for before, after in scores if before == 1.0)
    assert sum(after for _, after in scores) > sum(before for before, _ in scores)


async def test_a_repair_is_a_candidate_of_its_parent_s_round_and_costs_nothing() -> None:
    found = await events(program(LOWER, HIDDEN, search=Search(rounds=0)), engine(Lines(draft=["The Sea."])))

    first, second = (event.candidate for event in of_type(found, CandidateAdded))
    assert (first.id, first.form, first.text) == ("c0", "draft", "The Sea.")
    assert (second.id, second.form, second.parent, second.round, second.text) == ("c1", "repair", "c0", 0, "the sea.")
    assert second.completion.usage == Usage()
    assert [event.candidate.id for event in of_type(found, CandidateEvaluated)] == ["c0", "c1"]
    assert of_type(found, RepairEnded) == [RepairEnded("format.lowercase", kept=True)]


async def test_a_repair_that_passes_reaches_the_target() -> None:
    writer = engine(Lines(draft=["The Sea."]))
    done = await refined(program(LOWER, search=Search(rounds=3)), writer)

    assert (done.selected.text, done.selected.form, done.stop_reason) == ("the sea.", "repair", "target")
    assert len(done.rounds) == 1
    assert writer.counts() == {"draft": 1}
    assert done.usage["draft"].calls == 1


async def test_without_repairs_there_are_none() -> None:
    writer = engine(Lines(draft=["The Sea."], revise=["The Foam."]))
    found = await events(program(LOWER, search=Search(rounds=1, repairs=False)), writer)

    assert {event.candidate.form for event in of_type(found, CandidateAdded)} == {"draft", "edit"}
    assert of_type(found, RepairEnded) == []


async def test_a_caller_s_draft_is_repaired_too() -> None:
    writer = engine()
    done = await refined(program(LOWER, draft="The Sea."), writer)
    assert (done.selected.text, done.stop_reason, writer.counts()) == ("the sea.", "target", {})


async def test_judges_score_a_repair_like_any_other_text() -> None:
    writer = engine(Lines(draft=["The Sea."]))
    done = await refined(program(LOWER, JUDGE, search=Search(rounds=0)), writer)
    assert done.usage["judge"].calls == 4
    assert done.selected.text == "the sea."


async def test_the_next_round_edits_the_repair() -> None:
    writer = engine(Lines(draft=["The Sea."], revise=["The hidden Sea."]))
    done = await refined(program(LOWER, HIDDEN, search=Search(rounds=1, beam=2)), writer)

    _, revised = done.rounds
    assert [(c.form, c.parent, c.text) for c in revised.candidates] == [
        ("edit", "c1", "The hidden Sea."),
        ("repair", "c2", "the hidden sea."),
    ]
    assert done.selected.text == "the hidden sea."


@pytest.mark.parametrize("carry", ["best", "adaptive"])
async def test_seeds_of_what_is_written_do_not_depend_on_repairs(carry: Literal["best", "adaptive"]) -> None:
    async def seeds(*, repairs: bool) -> list[int]:
        writer = engine(Lines(draft=["The Sea.", "Foam."], revise=["More Sea.", "More foam."]))
        search = Search(drafts=2, rounds=2, beam=2, carry=carry, repairs=repairs)
        await refined(program(LOWER, HIDDEN, search=search, sampling=Sampling(seed=7)), writer)
        return sorted(call.sampling.seed or 0 for call in (*writer.asked("draft"), *writer.asked("revise")))

    assert await seeds(repairs=True) == await seeds(repairs=False) == [7, 8, 9, 10, 11, 12]


async def test_adaptive_search_does_not_see_repairs() -> None:
    async def made(*, repairs: bool) -> list[tuple[str, str]]:
        writer = engine(Lines(draft=["The Sea.", "Foam.", "Sand."], revise=["More Sea.", "More foam."]))
        search = Search(drafts=2, rounds=4, beam=2, carry="adaptive", repairs=repairs)
        done = await refined(program(LOWER, HIDDEN, search=search, sampling=Sampling(seed=7)), writer)
        texts = {c.id: c.text for ended in done.rounds for c in ended.candidates}
        return [
            (c.form, texts[c.parent] if c.parent else "")
            for ended in done.rounds
            for c in ended.candidates
            if c.form != "repair"
        ]

    assert await made(repairs=True) == await made(repairs=False)


async def test_a_repair_has_the_votes_of_all_texts_that_it_repairs() -> None:
    lines = Lines(draft=["Salt", "Salt", "foam", "sand", "foam ", "Salt"])
    done = await refined(program(LOWER, search=Search(drafts=6, rounds=0, select="vote")), engine(lines))
    assert done.selected.text == "salt"

    known = Lines(draft=["Salt", "salt", "foam", "foam", "SALT"])
    done = await refined(program(LOWER, search=Search(drafts=5, rounds=0, select="vote")), engine(known))
    assert done.selected.text == "salt"


async def test_pairwise_a_repair_wins_by_the_verifiers_without_a_call() -> None:
    writer = engine(Lines(draft=["The Sea."]))
    done = await refined(program(LOWER, search=Search(rounds=0, select="pairwise")), writer)
    assert (done.selected.text, writer.counts()) == ("the sea.", {"draft": 1})


async def test_other_evaluators_see_only_the_text_that_is_kept() -> None:
    other = Counted(SALT)
    await refined(program(LOWER, QUOTED, other, search=Search(rounds=0)), engine(Lines(draft=["Salt."])))
    assert other.seen == ["Salt.", '"salt."']


async def test_repairs_are_never_made_of_code_that_tests_run() -> None:
    tests = Broken(type="code_tests")
    found = await events(program(LOWER, tests, search=Search(rounds=0)), engine(Lines(draft=["The Sea."])))
    assert of_type(found, RepairEnded) == []


@dataclass(frozen=True, kw_only=True)
class Careless(Verifier):
    type: Literal["careless"] = "careless"

    def check(self, text: str) -> Sequence[Check]:
        return [Check("rule", 0.0, "it fails", "Do better.")]

    def repair(self, text: str) -> str | None:
        raise OSError(json.dumps(text))


async def test_a_repair_that_fails_costs_nothing_else() -> None:
    done = await refined(program(Careless(), LOWER, search=Search(rounds=0)), engine(Lines(draft=["The Sea."])))
    assert (done.selected.text, done.stop_reason) == ("The Sea.", "rounds")
