"""Stored traces as the material of lessons."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from service.learning.collected import Collected
from service.learning.lessons import make_lessons
from service.learning.stored import HOUSE_LEAST, Gathered, gather_traces
from service.traces.database import TraceDatabase
from service.traces.store import FeedbackKind
from tests.support.stored_traces import WAVES, candidate, feedback, make_document, make_trace, trace_store

SALT = {"type": "keywords", "include": ["salt"]}
SAID = 'Use all of these words: "salt".'
GOOD, BAD = "Sea water has salt in it.", "Sea water is never sweet."
NUMBERS = itertools.count()
Given = tuple[FeedbackKind, str, Any]


@pytest.fixture
async def store(place: str) -> Any:
    async with trace_store(place) as opened:
        yield opened


async def keep(store: TraceDatabase, document: Mapping[str, Any], *given: Given, **summary: Any) -> str:
    trace = make_trace(document, id=f"ref-{next(NUMBERS):032x}", **summary)
    await store.add(trace)
    for one in given:
        assert await store.add_feedback(trace.summary.caller, feedback(trace, *one)) is False
    return trace.summary.id


def account(*candidates: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    stated: dict[str, Any] = {"request": {}, "evaluators": [SALT], **fields}
    return make_document(list(candidates), **stated)


async def gather(store: TraceDatabase, *own: str, **options: Any) -> Gathered:
    return await gather_traces(store, own or ("scripted",), **options)


async def only(store: TraceDatabase, **options: Any) -> Collected:
    [found] = (await gather(store, **options)).collected
    return found


async def test_a_trace_gives_its_prompt_rules_and_texts(store: TraceDatabase) -> None:
    turns = [{"role": "system", "content": "Be kind.", "images": 0}, *WAVES]
    judge = {"type": "judge", "hard": False}
    its_id = await keep(
        store,
        account(
            candidate("c0", BAD, token_ids=[1, 2]),
            candidate("c1", GOOD, form="edit", parent="c0", round=1),
            prompts=[turns],
            evaluators=[SALT, {**SALT, "hard": False}, judge],
        ),
    )
    found = await only(store)

    assert [message.role for message in found.prompt.messages] == ["system", "user"]
    assert found.prompt.messages[-1].content == f"Write about waves.\n\n{SAID}"
    assert found.prompt.evaluators == (SALT,)
    assert found.prompt.kinds == ("include",)
    assert [(text.text, text.source, text.parent, text.token_ids) for text in found.texts] == [
        (BAD, "free", None, (1, 2)),
        (GOOD, "revision", 0, None),
    ]
    assert (found.trace, found.client) == (its_id, "ann")


async def test_texts_are_verified_again_whatever_was_found_then(store: TraceDatabase) -> None:
    wrong = {"evaluator": "keywords", "authority": "verifier", "hard": True, "passed": True, "score": 1.0}
    await keep(store, account(candidate("c0", BAD, {**wrong, "issues": [], "error": None})))
    found = await only(store)

    lessons = make_lessons([found], {found.prompt.id: "train"})
    assert lessons.texts == []
    assert lessons.left_out == {"no text passes": 1}


async def test_a_redraft_was_made_from_the_best_text_before_it(store: TraceDatabase) -> None:
    rounds = [{"round": 0, "incumbent": "c1"}, {"round": 1, "incumbent": "c2"}]
    await keep(
        store,
        account(
            candidate("c0", "Sweet."), candidate("c1", BAD), candidate("c2", GOOD, form="redraft", round=1),
            rounds=rounds,
        ),
    )  # fmt: skip
    found = await only(store)

    assert [(text.source, text.parent) for text in found.texts] == [("free", None), ("free", None), ("revision", 1)]


async def test_how_a_text_was_made_is_known(store: TraceDatabase) -> None:
    await keep(
        store,
        account(
            candidate("c0", "Mine.", token_ids=None),
            candidate("c1", GOOD, enforced=["keywords"]),
            candidate("c2", GOOD, form="repair", parent="c0"),
            request={"draft": "Mine."},
        ),
    )
    await keep(store, account(candidate("c0", "Theirs.")), kind="critique")
    first, second = (await gather(store)).collected

    assert [text.source for text in first.texts] == ["given", "constrained", "repair"]
    assert [text.source for text in second.texts] == ["given"]


async def test_feedback_becomes_edits_preferences_and_ratings(store: TraceDatabase) -> None:
    edited = "Sea water has a lot of salt."
    await keep(
        store,
        account(candidate("c0", BAD), candidate("c1", GOOD), candidate("c2", "Salt.")),
        ("edit", "c0", edited),
        ("choice", "c1", ["c0", "c2"]),
        ("thumb", "c2", "down"),
        ("thumb", "c1", "up"),
        ("score", "c0", 0.2),
        ("score", "c1", 0.9),
        ("score", "c2", 0.8),
    )
    found = await only(store)

    assert [(text.text, text.source, text.rating) for text in found.texts] == [
        (BAD, "free", None),
        (GOOD, "free", "up"),
        ("Salt.", "free", "down"),
        (edited, "edit", None),
    ]
    pairs = [(said.chosen, said.rejected) for said in found.preferences]
    assert pairs == [(3, 0), (1, 0), (1, 2), (1, 0), (2, 0)]  # the edit, the choice, then the scores


@pytest.mark.parametrize(("own", "kept"), [(("scripted",), (5, 6)), (("another",), None)])
async def test_only_the_tokens_of_the_base_and_its_adapters_are_kept(
    store: TraceDatabase, own: Sequence[str], kept: tuple[int, ...] | None
) -> None:
    await keep(store, account(candidate("c0", GOOD, token_ids=[5, 6])))
    found = await gather(store, *own)

    [text] = found.collected[0].texts
    assert text.token_ids == kept
    assert found.foreign == ({} if kept else {"scripted": 1})


async def test_redacted_texts_and_prompts_with_images_are_left_out(store: TraceDatabase) -> None:
    image = [{"role": "user", "content": "What is it?", "images": 1}]
    reply = [*WAVES, {"role": "assistant", "content": "Waves.", "images": 0}]
    await keep(
        store,
        account(candidate("c0", f"{GOOD} Ask [email]."), candidate("c1", GOOD, parent="c0", form="edit")),
        ("edit", "c1", "Ask [email]."),
    )
    await keep(store, account(candidate("c0", GOOD), prompts=[image]))
    await keep(store, account(candidate("c0", GOOD), prompts=[reply]))
    found = await gather(store)

    [collected] = found.collected
    assert [(text.text, text.parent) for text in collected.texts] == [(GOOD, None)]
    assert found.left_out == {
        "prompts with images, which are not stored": 1,
        "conversations that do not end with the user": 1,
    }


async def test_each_prompt_of_a_generate_is_a_prompt_of_its_own(store: TraceDatabase) -> None:
    other = [{"role": "user", "content": "Write about wind.", "images": 0}]
    texts = [candidate("0.0", "Waves."), candidate("1.0", "Wind.", prompt=1), candidate("1.1", "Air.", prompt=1)]
    its_id = await keep(
        store,
        {"request": {}, "prompts": [WAVES, other], "candidates": texts},
        ("choice", "1.1", ["1.0"]),
        kind="generate",
    )
    first, second = (await gather(store)).collected

    assert (first.prompt.id, second.prompt.id) == (f"{its_id}.0", f"{its_id}.1")
    assert [text.text for text in second.texts] == ["Wind.", "Air."]
    assert [(said.chosen, said.rejected) for said in second.preferences] == [(1, 0)]
    assert first.preferences == ()


async def test_all_callers_give_and_those_who_are_trusted_are_not_named(store: TraceDatabase) -> None:
    for caller in ("ann", "ben", "cat"):
        await keep(store, account(candidate("c0", GOOD)), caller=caller)

    found = await gather(store, trusted=["ben"])
    assert [each.client for each in found.collected] == ["ann", "", "cat"]


async def test_a_rule_that_the_prompt_does_not_state_is_added_once(store: TraceDatabase) -> None:
    stated = [{"role": "user", "content": f"Write about waves. {SAID}", "images": 0}]
    await keep(store, account(candidate("c0", GOOD), prompts=[stated]))

    assert (await only(store)).prompt.text == f"Write about waves. {SAID}"


async def test_a_rule_of_the_house_becomes_a_habit(store: TraceDatabase) -> None:
    brief = {"type": "length", "unit": "words", "max": 9}
    for number in range(HOUSE_LEAST):
        own = {"type": "length", "unit": "sentences", "max": number + 1}
        document = account(candidate("c0", GOOD), evaluators=[brief, own])
        await keep(store, document, task="summarize")
    await keep(store, account(candidate("c0", GOOD), evaluators=[brief]), task="general")
    found = (await gather(store)).collected

    summaries = [each.prompt.text for each in found[:HOUSE_LEAST]]
    assert not any("words" in prompt for prompt in summaries)
    assert all("sentence" in prompt for prompt in summaries)
    assert "words" in found[-1].prompt.text


async def test_a_rule_that_needs_more_than_the_text_gives_no_lesson(store: TraceDatabase) -> None:
    await keep(store, account(candidate("c0", GOOD), evaluators=[{"type": "code_tests", "hard": True}]))
    found = await only(store)

    lessons = make_lessons([found], {found.prompt.id: "train"})
    assert lessons.left_out == {"rules that a text alone does not show": 1}


async def test_withdrawn_traces_are_not_used(store: TraceDatabase) -> None:
    its_id = await keep(store, account(candidate("c0", GOOD)))
    assert (await gather(store, withdrawn=[its_id])).collected == []
