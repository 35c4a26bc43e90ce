"""What is returned when the time runs out while texts are written, over real HTTP."""

from typing import Any

import pytest

from service.engines.scripted import Script
from tests.support.serving import Served, serving

STORY = " ".join(f"salt {number}" for number in range(500))
SALT = {"evaluators": [{"type": "keywords", "include": ["salt"]}]}
MESSAGES = {"messages": [{"role": "user", "content": "Write about the sea."}]}
LONG = {"sampling": {"max_tokens": 1_000}}


async def cut_short(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer of a service whose engine needs ten seconds for the text, and that gives it half a second."""
    async with serving(Script(reply=lambda call: STORY, seconds_per_token=0.01), max_seconds=0.5) as served:
        response = await served.post(path, body)
        await served.at_rest()
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def is_beginning(text: str) -> bool:
    return "salt" in text and STORY.startswith(text) and len(text) < len(STORY)


async def test_a_refine_returns_its_unfinished_drafts_and_what_verifiers_say_of_them() -> None:
    answer = await cut_short("/v1/refine", {**MESSAGES, **SALT, **LONG, "judge": False, "search": {"drafts": 2}})

    assert answer["stop_reason"] == "deadline"
    assert is_beginning(answer["text"])
    assert answer["passed"] is True
    assert [candidate["finish_reason"] for candidate in answer["rounds"][0]["candidates"]] == ["deadline"] * 2


async def test_a_generate_returns_its_texts_as_far_as_they_came() -> None:
    answer = await cut_short("/v1/generate", {**MESSAGES, **LONG, "n": 2})

    assert all(is_beginning(choice["text"]) for choice in answer["choices"])
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["deadline"] * 2
    assert answer["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize(
    "asked", [{"model": "scripted"}, {"model": "scripted:refine", "redraft": {**SALT, "judge": False}}]
)
async def test_a_chat_ends_as_one_that_reached_its_limit(asked: dict[str, Any]) -> None:
    answer = await cut_short("/v1/chat/completions", {**MESSAGES, **asked})

    [choice] = answer["choices"]
    assert is_beginning(choice["message"]["content"])
    assert choice["finish_reason"] == "length"


async def test_a_budget_with_no_room_for_one_token_is_rejected(served: Served) -> None:
    response = await served.post("/v1/refine", {**MESSAGES, **SALT, "budget": {"tokens": 3}})

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["budget.tokens"]
