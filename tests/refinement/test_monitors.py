"""Texts that are stopped while they are written: when, what takes their place, and what the account says of them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from service.engines.base import Sampling
from service.evaluators.base import Check, Verifier
from service.evaluators.text.format import Format
from service.evaluators.text.keywords import Keywords, OneOf
from service.evaluators.text.length import Length
from service.evaluators.text.passages import StartsWith
from service.refinement.events import Refined, TextAborted
from service.refinement.monitors import LOOP, Monitor, Stopped
from service.refinement.program import Search
from service.refinement.watched import MOST_LOST, SEEDS_APART
from tests.support.scripts import JUDGE, SALT, Lines, engine, events, of_type, program, refined, settled, stall

NO_COMMAS = Format(kind="no_commas")
BAD = "The sea, that is wide, has much salt in it, and foam, and sand, and many fish that swim. " * 2
BAD += "That is, all of it, the sea."
GOOD = "The sea is wide and has much salt in it. Foam and sand are there too. Many fish swim in it. " * 2
GOOD += "That is all."
NO_REPAIRS = Search(drafts=1, rounds=0, repairs=False)


def watched(text: str, *rules: Verifier, repairs: bool = True, may_lose: bool = True) -> tuple[Stopped | None, str]:
    """Why a text is stopped that comes word by word, and how far it came."""
    monitor, read = Monitor(rules, repairs=repairs, may_lose=lambda _: may_lose), ""
    for word in text.split(" "):
        read += f"{word} "
        if monitor.feed(f"{word} ", 0.1) is not None:
            break
    return monitor.stopped, read


def test_a_text_is_lost_at_the_first_rule_that_nothing_can_save() -> None:
    stopped, read = watched(BAD, SALT, NO_COMMAS)
    assert stopped == Stopped("format", lost=True)
    assert len(read) < 40


def test_a_text_that_may_not_be_lost_goes_on() -> None:
    assert watched(BAD, NO_COMMAS, may_lose=False) == (None, f"{BAD} ")


def test_what_a_repair_will_save_goes_on() -> None:
    lower = Format(kind="lowercase")
    assert watched(GOOD, lower)[0] is None
    assert watched(GOOD, lower, repairs=False)[0] == Stopped("format", lost=True)
    assert watched(GOOD, StartsWith(text="Dear sea,"))[0] is None


def test_a_text_that_is_long_enough_is_stopped_and_kept() -> None:
    stopped, read = watched(GOOD, Length(unit="words", max=14))
    assert stopped == Stopped("length", lost=False)
    assert len(read) < len(GOOD) / 2
    assert watched("Yes. That is how it is, because the sea is salt.", OneOf(options=("yes", "no")))[0] == Stopped(
        "one_of", lost=False
    )


def test_soft_rules_and_rules_of_the_whole_text_stop_nothing() -> None:
    assert watched(BAD, Format(kind="no_commas", hard=False))[0] is None
    assert watched(BAD, Keywords(include=("whale",)))[0] is None


def test_a_word_counts_once_it_is_whole() -> None:
    monitor = Monitor([Keywords(exclude=("art",))], repairs=True, may_lose=lambda _: True)
    for piece in ("A good time was had at the p", "art", "y of the year, and the st", "art"):
        assert monitor.feed(piece, 0.1) is None
    assert monitor.feed(" of it was fine, and so was the art of it. ", 0.1) is not None


def test_of_a_loop_what_comes_before_it_is_kept() -> None:
    text = "The sea is wide. It is salt. " + "It is deep. " * 40
    monitor = Monitor([SALT], repairs=True, may_lose=lambda _: True)
    assert monitor.feed(text, 0.1) == len("The sea is wide. It is salt. It is deep.")
    assert monitor.stopped == Stopped(LOOP, lost=False)


@dataclass(frozen=True, kw_only=True)
class Careless(Verifier):
    type: Literal["careless"] = "careless"

    def check(self, text: str) -> Sequence[Check]:
        return [Check("rule", 1.0, "", "Be.")]

    def is_broken(self, beginning: str) -> bool:
        raise OSError("no")


def test_a_verifier_that_fails_is_not_asked_again() -> None:
    assert watched(BAD, Careless(), NO_COMMAS)[0] == Stopped("format", lost=True)


async def test_another_text_takes_the_place_of_a_lost_one() -> None:
    writer = engine(Lines(draft=[BAD, BAD, GOOD]))
    found = await events(program(NO_COMMAS, search=NO_REPAIRS, sampling=Sampling(seed=3)), writer)
    done = found[-1]
    assert isinstance(done, Refined)

    [ended] = done.rounds
    assert [(c.text, c.completion.finish_reason) for c in ended.candidates] == [(GOOD, "stop")]
    assert [lost.rule for lost in ended.lost] == ["format", "format"]
    assert all(BAD.startswith(lost.completion.text) for lost in ended.lost)
    assert [call.sampling.seed for call in writer.asked("draft")] == [3, 3 + SEEDS_APART, 3 + 2 * SEEDS_APART]
    assert [event.lost for event in of_type(found, TextAborted)] == [True, True]
    assert done.usage == writer.bill
    await settled(writer)


async def test_at_last_a_text_is_written_to_its_end() -> None:
    writer = engine(Lines(draft=[BAD]))
    done = await refined(program(NO_COMMAS, search=NO_REPAIRS), writer)
    assert done.selected.text == BAD
    assert len(done.rounds[0].lost) == MOST_LOST
    assert writer.counts() == {"draft": 1 + MOST_LOST}


@pytest.mark.parametrize(
    "fields", [{"sampling": Sampling(temperature=0.0)}, {"calls": 9}, {"search": Search(rounds=0, aborts=False)}]
)
async def test_without_a_better_chance_no_text_is_given_up(fields: dict[str, Any]) -> None:
    writer = engine(Lines(draft=[BAD]))
    done = await refined(program(NO_COMMAS, **{"search": NO_REPAIRS, **fields}), writer)
    assert (done.selected.text, writer.counts(), done.rounds[0].lost) == (BAD, {"draft": 1}, ())


async def test_a_budget_that_allows_no_other_text_lets_a_lost_one_go_on() -> None:
    writer = engine(Lines(draft=[BAD]))
    done = await refined(program(NO_COMMAS, search=NO_REPAIRS, tokens=60, sampling=Sampling(max_tokens=50)), writer)
    assert sum(usage.tokens for usage in done.usage.values()) <= 60
    roomy = await refined(
        program(NO_COMMAS, search=NO_REPAIRS, tokens=1_000, sampling=Sampling(max_tokens=100)),
        engine(Lines(draft=[BAD])),
    )
    assert len(roomy.rounds[0].lost) == MOST_LOST


async def test_if_the_time_ends_before_another_is_begun_the_lost_text_is_returned() -> None:
    writer = engine(Lines(draft=[BAD, GOOD]))
    loop = asyncio.get_running_loop()
    stall(writer, lambda call: len(writer.calls) == 2)
    asked = program(NO_COMMAS, search=NO_REPAIRS, seconds=0.3)
    done = await refined(asked, writer)
    assert loop.time() < asked.budget.deadline + 1
    assert done.stop_reason == "deadline"
    assert BAD.startswith(done.selected.text)
    assert (bool(done.selected.text), done.selected.completion.finish_reason) == (True, "deadline")


async def test_a_text_that_is_long_enough_saves_its_tokens_and_is_repaired() -> None:
    writer = engine(Lines(draft=[GOOD]))
    done = await refined(program(Length(unit="words", max=14), search=Search(rounds=0)), writer)
    assert done.selected.text == "The sea is wide and has much salt in it."
    assert done.selected.completion.finish_reason == done.first.completion.finish_reason == "aborted"
    assert done.usage["draft"].completion_tokens < len(GOOD.split()) / 2


async def test_siblings_of_a_lost_text_go_on() -> None:
    writer = engine(Lines(draft=[BAD, GOOD, "Salt.", GOOD]))
    done = await refined(program(NO_COMMAS, JUDGE, search=Search(drafts=3, rounds=0)), writer)
    assert sorted(c.text for c in done.rounds[0].candidates if c.form == "draft") == sorted(["Salt.", GOOD, GOOD])


@pytest.mark.parametrize("tokens", [*range(20, 200, 9), 400, 800])
async def test_lost_texts_keep_within_the_budget_and_are_in_the_account(tokens: int) -> None:
    writer = engine(Lines(draft=[BAD, GOOD, BAD, BAD], revise=[BAD, GOOD]))
    search = Search(drafts=3, rounds=2, beam=2)
    found = await events(
        program(NO_COMMAS, SALT, search=search, tokens=tokens, sampling=Sampling(max_tokens=60)), writer
    )
    done = found[-1]
    assert isinstance(done, Refined)
    assert sum(usage.tokens for usage in done.usage.values()) <= tokens
    assert done.usage == writer.bill
    lost = [text.completion.usage.completion_tokens for ended in done.rounds for text in ended.lost]
    assert lost == [event.usage.completion_tokens for event in of_type(found, TextAborted) if event.lost]
    await settled(writer)
