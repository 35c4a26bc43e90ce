"""Texts of a refine that are shown while they are written."""

from collections.abc import Sequence
from contextlib import aclosing

from service.engines.base import Sampling
from service.evaluators.text.keywords import Keywords
from service.refinement.events import CandidateAdded, Event, TextBegun, TextDelta, TextReasoningDelta
from service.refinement.loop import refine
from service.refinement.program import Search
from service.refinement.roles import Roles
from tests.support.scripts import SALT, BilledEngine, Lines, engine, events, of_type, program, refined

WAVES = "Waves come and go, and nobody has ever counted them all, though many have tried to do so in vain."
SALTY = "Salt waves come and go, and nobody has ever counted them all, though some still try to do so now."
HOSTILE = '\x1b[31m<img src=x onerror="hit()">\u202e\u2028event: done\ndata: {}\n\n</think> [0123] ' + "e\u0301" * 40


def read(found: Sequence[Event]) -> dict[tuple[int, int], str]:
    """The texts as a reader has them who forgets a text that is given up."""
    texts: dict[tuple[int, int], str] = {}
    for event in found:
        match event:
            case TextBegun():
                texts[event.round, event.index] = ""
            case TextDelta():
                texts[event.round, event.index] += event.text
    return texts


def slow(lines: Lines, **script: object) -> BilledEngine:
    """An engine whose pieces are read one by one."""
    return engine(lines, seconds_per_token=0.0005, **script)


async def test_nothing_is_shown_unless_it_is_wanted() -> None:
    found = await events(program(SALT), slow(Lines(draft=[WAVES])))

    assert not [event for event in found if isinstance(event, TextBegun | TextDelta | TextReasoningDelta)]
    assert {event.index for event in of_type(found, CandidateAdded)} == {None}


async def test_the_pieces_of_each_text_join_to_its_candidate() -> None:
    lines = Lines(draft=[WAVES, WAVES.upper(), WAVES.lower()], revise=[SALTY])
    search = Search(drafts=3, repairs=False, aborts=False)

    found = await events(program(SALT, search=search, deltas=True), slow(lines))

    added = of_type(found, CandidateAdded)
    assert {(event.candidate.round, event.index) for event in added} == {(0, 0), (0, 1), (0, 2), (1, 0)}
    assert read(found) == {(event.candidate.round, event.index): event.candidate.text for event in added}
    assert len(of_type(found, TextDelta)) > 2 * len(added)
    begun = {(event.round, event.index): (event.form, event.parent) for event in of_type(found, TextBegun)}
    assert begun == {
        (event.candidate.round, event.index): (event.candidate.form, event.candidate.parent) for event in added
    }


async def test_showing_changes_neither_the_texts_nor_their_cost() -> None:
    search = Search(drafts=2, rounds=2)

    plain = await refined(program(SALT, search=search), slow(Lines(draft=[WAVES], revise=[SALTY])))
    shown = await refined(program(SALT, search=search, deltas=True), slow(Lines(draft=[WAVES], revise=[SALTY])))

    assert [c.text for ended in shown.rounds for c in ended.candidates] == [
        c.text for ended in plain.rounds for c in ended.candidates
    ]
    assert shown.usage == plain.usage


async def test_a_text_that_is_given_up_is_begun_again() -> None:
    lines = Lines(draft=[f"No. {WAVES}", WAVES])
    search = Search(rounds=0, repairs=False)
    asked = program(Keywords(exclude=("No",)), search=search, sampling=Sampling(temperature=1.0), deltas=True)

    found = await events(asked, slow(lines))

    begun = [event for event in found if isinstance(event, TextBegun)]
    assert begun == [TextBegun(0, 0, "draft", None)] * 2
    assert read(found) == {(0, 0): WAVES}
    assert [event.candidate.text for event in of_type(found, CandidateAdded)] == [WAVES]


async def test_a_repair_and_the_caller_s_draft_have_no_pieces() -> None:
    found = await events(program(SALT, draft=WAVES, search=Search(rounds=0), deltas=True), slow(Lines()))

    assert read(found) == {}


async def test_thoughts_are_shown_apart_from_the_text() -> None:
    lines = Lines(draft=[f"<think>{WAVES}</think>{SALTY}"])

    found = await events(program(SALT, search=Search(rounds=0), deltas=True), slow(lines))

    thought = "".join(event.text for event in of_type(found, TextReasoningDelta))
    assert thought.strip() == WAVES
    assert read(found) == {(0, 0): SALTY}
    assert len(of_type(found, TextBegun)) == 1


async def test_a_hostile_text_is_shown_as_it_is() -> None:
    search = Search(rounds=0, aborts=False, repairs=False)

    found = await events(program(SALT, search=search, deltas=True), slow(Lines(draft=[HOSTILE])))

    [added] = of_type(found, CandidateAdded)
    assert read(found) == {(0, 0): added.candidate.text}
    assert "onerror" in added.candidate.text


async def test_a_reader_that_leaves_ends_the_writing() -> None:
    writer = slow(Lines(draft=[WAVES]))

    async with aclosing(refine(program(SALT, deltas=True), Roles.single(writer))) as found:
        async for event in found:
            if isinstance(event, TextDelta):
                break

    assert writer.in_flight == 0
