"""What texts are sampled under, by the mode of the search, and what the account says of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from service.concurrency import SerialThread
from service.constraints.algebra import Constraint
from service.engines.base import Sample, Sampling
from service.engines.decoding import GrammarRefused
from service.engines.scripted import Script, ScriptedEngine
from service.evaluators.base import Evaluator
from service.evaluators.code.sandbox import Sandbox
from service.evaluators.code.tests import CodeTests, TestedCode
from service.evaluators.text.format import Format
from service.evaluators.text.keywords import Keywords
from service.evaluators.text.language import Language
from service.evaluators.text.length import Length
from service.evaluators.text.passages import StartsWith
from service.evaluators.text.schema import FollowsSchema
from service.refinement.branching import Expansion
from service.refinement.candidate import Candidate
from service.refinement.constraining import BEYOND_LIMITS, BROKEN, NO_GRAMMARS, Constraining, will_have_spaces
from service.refinement.events import ConstraintFailed, Event, Refined
from service.refinement.loop import refine
from service.refinement.program import Constraints, Search
from service.refinement.roles import Roles
from tests.support.scripts import JUDGE, program

NO_COMMAS = Format(kind="no_commas")
FEW_WORDS = Length(unit="words", max=6)
RULES: Sequence[Evaluator] = (NO_COMMAS, FEW_WORDS)
WORDY = "The sea, which is wide, has many waves, and they are all salt."


def wordy(call: Sample) -> str:
    return WORDY


@dataclass
class Limited(ScriptedEngine):
    """An engine that refuses grammars that count words."""

    refused: list[str] = field(default_factory=list)

    async def prove(self, grammar: str) -> None:
        if "incr" in grammar or "words" in grammar:
            self.refused.append(grammar)
            raise GrammarRefused("too complex")
        await super().prove(grammar)


async def events_of(evaluators: Sequence[Evaluator], search: Search, engine: ScriptedEngine) -> list[Event]:
    search = replace(search, repairs=False, aborts=False)  # texts stay as they were sampled
    stated = program(*evaluators, search=search, sampling=Sampling(max_tokens=40, seed=1))
    return [event async for event in refine(stated, Roles.single(engine))]


async def candidates_of(
    mode: Constraints, engine: ScriptedEngine, evaluators: Sequence[Evaluator] = RULES, **search: Any
) -> list[Candidate]:
    events = await events_of(evaluators, Search(constraints=mode, rounds=1, **search), engine)
    done = events[-1]
    assert isinstance(done, Refined)
    return [candidate for ended in done.rounds for candidate in ended.candidates]


def shaping(**script: Any) -> ScriptedEngine:
    return ScriptedEngine(Script(reply=wordy, takes_grammars=True, **script))


def rules_of(candidate: Candidate) -> tuple[str, ...] | None:
    return None if candidate.under is None else candidate.under.enforced_rules


@pytest.mark.parametrize(
    ("mode", "draft", "revision"),
    [
        ("off", None, None),
        ("auto", ("format.no_commas",), ("format.no_commas", "length.words")),
        ("revisions", None, ("format.no_commas", "length.words")),
        ("always", ("format.no_commas", "length.words"), ("format.no_commas", "length.words")),
    ],
)
async def test_the_mode_decides_which_texts_are_under_which_rules(
    mode: Constraints, draft: tuple[str, ...] | None, revision: tuple[str, ...] | None
) -> None:
    candidates = await candidates_of(mode, shaping(), [*RULES, JUDGE])

    assert [rules_of(candidate) for candidate in candidates] == [draft, revision][: len(candidates)]
    assert len(candidates) == 2
    for candidate in candidates:
        enforced = rules_of(candidate) or ()
        assert ("," in candidate.text) is ("format.no_commas" not in enforced)
        assert len(candidate.text.split()) <= 6 or "length.words" not in enforced


@pytest.mark.parametrize(("mode", "bound"), [("auto", 2), ("revisions", 0), ("off", 0)])
async def test_every_second_draft_may_be_under_all_rules_behind_the_others(mode: Constraints, bound: int) -> None:
    drafts = [each for each in await candidates_of(mode, shaping(), drafts=5) if each.form == "draft"]

    assert [candidate.bound for candidate in drafts] == [False] * (5 - bound) + [True] * bound


async def test_drafts_are_alike_where_no_rule_would_change_the_text() -> None:
    engine = shaping()
    await candidates_of("auto", engine, [NO_COMMAS], drafts=4)

    assert len({sample.grammar for sample in engine.calls_of(Sample)}) == 1


async def test_code_is_only_under_rules_that_fit_code() -> None:
    """A grammar of words would forbid indentation."""
    tests = TestedCode(CodeTests(tests="assert f() == 1"), Sandbox("bwrap", 1))  # nothing runs it
    engine = shaping()
    thread = SerialThread()
    found = Constraining(
        [tests, NO_COMMAS, FEW_WORDS], "always", Sampling(max_tokens=40, landing=False), engine, thread
    )

    under = await found.of(Expansion("draft"))

    assert under is not None
    assert under.enforced_rules == ("format.no_commas",)
    assert ("length.words", "the text is code, or in a script without spaces") in under.left_out_rules


async def test_a_draft_without_rules_about_words_is_not_made_to_land_by_a_grammar() -> None:
    engine = shaping()

    [draft, *_] = await candidates_of("always", engine, [NO_COMMAS])

    [sample, *_] = engine.calls_of(Sample)
    assert rules_of(draft) == ("format.no_commas",)
    assert sample.grammar is not None
    assert "incr" not in sample.grammar


@pytest.mark.parametrize(
    ("request_text", "evaluators", "spaced"),
    [
        ("Write about the sea.", (), True),
        ("写一句关于大海的话。", (), False),
        ("เขียนเกี่ยวกับทะเล", (), False),
        ("Summarise 大海 in English.", (), True),
        ("Translate: The sea is wide.", (Language(code="ja"),), False),
        ("大海很宽。请翻译。", (Language(code="en"),), True),
        ("1 + 1 = ?", (), True),
    ],
)
def test_an_answer_has_spaces_as_its_language_demands_or_else_as_the_request_has(
    request_text: str, evaluators: Sequence[Evaluator], spaced: bool
) -> None:
    assert will_have_spaces(request_text, evaluators) is spaced


async def test_an_engine_without_grammars_is_asked_for_none_and_the_account_says_so() -> None:
    engine = ScriptedEngine(Script(reply=wordy))

    candidates = await candidates_of("always", engine)

    for candidate in candidates:
        assert candidate.under is not None
        assert candidate.under.left_out_rules == [("format.no_commas", NO_GRAMMARS), ("length.words", NO_GRAMMARS)]
        assert candidate.free
    assert {(sample.grammar, sample.given) for sample in engine.calls_of(Sample)} == {(None, "")}


async def test_a_rule_that_is_not_hard_is_not_enforced() -> None:
    soft = Keywords(include=("salt",), hard=False)

    [draft, *_] = await candidates_of("always", shaping(), [NO_COMMAS, soft])

    assert draft.under is not None
    assert rules_of(draft) == ("format.no_commas",)
    assert draft.under.left_out == ()


async def test_what_is_beyond_the_decoders_limits_is_left_out_worst_first() -> None:
    engine = Limited(Script(reply=wordy, takes_grammars=True))

    [draft, *_] = await candidates_of("always", engine)

    assert draft.under is not None
    assert engine.refused
    assert rules_of(draft) == ("format.no_commas",)
    assert ("length.words", BEYOND_LIMITS) in draft.under.left_out_rules


async def test_a_schema_that_no_grammar_holds_to_is_only_checked() -> None:
    unique = FollowsSchema(schema={"type": "array", "items": {"type": "integer"}, "uniqueItems": True})

    [draft, *_] = await candidates_of("always", shaping(), [unique])

    assert draft.text == WORDY
    assert draft.under is not None
    assert [reason for _, reason in draft.under.left_out_rules] == [BEYOND_LIMITS]


async def test_of_rules_that_contradict_each_other_one_is_left_out() -> None:
    [draft, *_] = await candidates_of("always", shaping(), [FEW_WORDS, Length(unit="words", min=9)])

    assert draft.under is not None
    assert rules_of(draft) == ("length.words",)
    assert draft.under.left_out_rules == [("length.words", "at least 9 and at most 6 words are demanded")]


async def test_a_decoder_that_fails_is_reported_and_its_text_counts_as_free() -> None:
    events = await events_of([NO_COMMAS], Search(constraints="always", rounds=0), shaping(grammar_breaks=True))

    [failed] = [event for event in events if isinstance(event, ConstraintFailed)]
    done = events[-1]
    assert isinstance(done, Refined)
    assert failed == ConstraintFailed("decoder", ("format.no_commas",))
    assert done.selected.text == WORDY
    assert done.selected.under is not None
    assert done.selected.under.left_out_rules == [("format.no_commas", BROKEN)]
    assert done.selected.free


async def test_no_text_is_empty_because_of_a_grammar() -> None:
    def reply(call: Sample) -> str:
        return "" if call.grammar is not None else WORDY

    engine = ScriptedEngine(Script(reply=reply, takes_grammars=True, grammar_breaks=True))
    events = await events_of([Length(unit="words", min=3)], Search(constraints="always", rounds=0), engine)

    done = events[-1]
    assert isinstance(done, Refined)
    assert done.selected.text == WORDY
    assert [event.cause for event in events if isinstance(event, ConstraintFailed)] == ["decoder"]
    assert sum(usage.calls for usage in done.usage.values()) == 2


async def test_a_text_that_follows_its_grammar_and_breaks_an_enforced_rule_is_reported() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Stricter(Format):
        """It checks more than it demands."""

        def constraints(self) -> Sequence[Constraint]:
            return [Constraint("format.no_commas", constraint.demand) for constraint in NO_COMMAS.constraints()]

        def check(self, text: str) -> Any:
            return NO_COMMAS.check(f"{text},")

    events = await events_of([Stricter(kind="no_commas")], Search(constraints="always", rounds=0), shaping())

    assert [event for event in events if isinstance(event, ConstraintFailed)] == [
        ConstraintFailed("grammar", ("format.no_commas",))
    ]


async def test_the_choices_of_the_caller_take_the_place_of_constraints() -> None:
    stated = program(FEW_WORDS, search=Search(rounds=0), sampling=Sampling(choices=("yes", "no")))
    engine = shaping()

    *_, done = [event async for event in refine(stated, Roles.single(engine))]

    assert isinstance(done, Refined)
    assert done.selected.under is None
    assert done.selected.text in ("yes", "no")


async def test_what_a_text_begins_with_is_given() -> None:
    engine = shaping()

    [draft, *_] = await candidates_of("auto", engine, [StartsWith(text="Dear reader")])

    assert draft.text.startswith("Dear reader")
    assert {sample.given for sample in engine.calls_of(Sample)} == {"Dear reader"}


async def test_the_adaptive_search_tries_revisions_with_and_without_constraints() -> None:
    never = Keywords(include=("\u4e00\u4e00\u4e00",))
    candidates = await candidates_of(
        "auto", shaping(), [NO_COMMAS, never], drafts=2, beam=8, branches=2, carry="adaptive"
    )

    revisions = [candidate for candidate in candidates if candidate.form != "draft"]
    assert {candidate.free for candidate in revisions} == {True, False}
    assert not any("," in candidate.text for candidate in revisions if not candidate.free)
