"""The client loops and the requests that run a program."""

import itertools
import json

import httpx
import pytest

from bench.performance.arms import ARMS, FEEDBACK, ROLES
from bench.performance.lengths import FIXED, NATURAL, NEVER
from bench.performance.programs import CONTRADICTION, ChatLoop, Job, ProgramCut, Refine, manner_of_redraft
from service.wire.requests import RefineRequest
from tests.bench.performance.stand_ins import (
    ChatServer,
    open_client,
)


async def test_one_chat_only_ever_grows() -> None:
    server = ChatServer()
    async with open_client(server) as chat:
        exchanges = await ChatLoop()(chat, Job("Rewrite this.", FIXED, seed=7, banned=(1, 2)))
    messages = [asked["messages"] for asked in server.asked]
    assert [len(each) for each in messages] == [1, 3, 5, 7, 9]
    assert all(longer[: len(shorter)] == shorter for shorter, longer in itertools.pairwise(messages))
    assert [m["role"] for m in messages[-1]] == ["user", "assistant"] * 4 + ["user"]
    assert messages[-1][1]["content"] == "text 1"
    asks = manner_of_redraft()
    assert [messages[-1][place]["content"] for place in (2, 4, 6, 8)] == [asks.critique, asks.revise] * 2
    assert "missing: harbour" in asks.critique
    assert asks.revise == 'Use all of these words: "harbour".'
    assert [each.reply for each in exchanges] == [f"text {n}" for n in range(1, 6)]
    assert [each.prompt_tokens for each in exchanges] == [1, 2, 3, 4, 5]


async def test_a_textbook_loop_gives_each_role_its_system_prompt_and_the_same_history() -> None:
    textbook, one_chat = ChatServer(), ChatServer()
    job = Job("Rewrite this.", FIXED, seed=7)
    async with open_client(textbook) as first, open_client(one_chat) as second:
        await ChatLoop(ROLES)(first, job)
        await ChatLoop()(second, job)
    systems = [asked["messages"][0]["content"] for asked in textbook.asked]
    roles = ("draft", "critique", "revise", "critique", "revise")
    assert systems == [ROLES[role] for role in roles]
    assert [asked["messages"][1:] for asked in textbook.asked] == [asked["messages"] for asked in one_chat.asked]


async def test_fixed_lengths_ban_the_ends_of_replies() -> None:
    server = ChatServer()
    async with open_client(server) as chat:
        await ChatLoop()(chat, Job("Rewrite this.", FIXED, seed=7, banned=(1, 2)))
    assert [asked["max_tokens"] for asked in server.asked] == [120, 60, 120, 60, 120]
    assert all(asked["logit_bias"] == {"1": NEVER, "2": NEVER} for asked in server.asked)
    assert not any("response_format" in asked for asked in server.asked)


async def test_natural_lengths_sample_as_redraft_does() -> None:
    server = ChatServer()
    async with open_client(server) as chat:
        await ChatLoop()(chat, Job("Rewrite this.", NATURAL, seed=7, banned=(1, 2)))
    texts, critiques = server.asked[::2], server.asked[1::2]
    assert [asked["seed"] for asked in texts] == [7, 8, 9]
    assert all(asked["temperature"] == manner_of_redraft().temperature > 0 for asked in texts)
    assert all(asked["temperature"] == 0.0 and asked["max_tokens"] == 160 for asked in critiques)
    assert all("issues" in json.dumps(asked["response_format"]) for asked in critiques)
    assert not any("logit_bias" in asked for asked in server.asked)


async def test_a_textbook_critic_scores_in_words_where_it_may() -> None:
    natural, fixed = ChatServer(), ChatServer()
    async with open_client(natural) as first, open_client(fixed) as second:
        await ChatLoop(ROLES, FEEDBACK)(first, Job("Rewrite this.", NATURAL, seed=7))
        await ChatLoop(ROLES, FEEDBACK)(second, Job("Rewrite this.", FIXED, seed=7))
    asked = [[asked["messages"][-1]["content"] for asked in server.asked[1::2]] for server in (natural, fixed)]
    assert asked == [[FEEDBACK] * 2, [manner_of_redraft().critique] * 2]
    assert not any("response_format" in asked for asked in natural.asked)


@pytest.mark.parametrize("arm", [name for name, arm in ARMS.items() if isinstance(arm.program, Refine)])
async def test_every_arm_is_a_request_that_the_service_takes(arm: str) -> None:
    asked: list[RefineRequest] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(RefineRequest.model_validate_json(request.content))
        return httpx.Response(200, json={"stop_reason": "rounds"})

    async with open_client(answer) as redraft:
        assert await ARMS[arm].program(redraft, Job("Rewrite this.", FIXED, seed=7)) == ()
    [request] = asked
    assert request.sampling.given_fields() == {"max_tokens": 120, "seed": 7}
    assert not request.trace


async def test_a_program_that_was_cut_is_no_measurement() -> None:
    async with open_client(lambda request: httpx.Response(200, json={"stop_reason": "deadline"})) as redraft:
        with pytest.raises(ProgramCut, match="deadline"):
            await Refine({})(redraft, Job("Rewrite this.", FIXED, seed=7))


@pytest.mark.parametrize("text", ["", "A harbour.", "No such word."])
def test_no_text_ends_a_program_early(text: str) -> None:
    assert min(check.score for check in CONTRADICTION.check(text)) < 1
