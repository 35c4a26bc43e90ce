"""How long prompts are at most, at a server that only says how long they were."""

import pytest

from service.engines.base import Choose, Sample, Sampling, Usage, Weigh
from service.engines.conversation import Conversation, Image, Turn
from service.engines.remote.chat import ChatCapabilities, ChatEngine
from service.engines.remote.lengths import IMAGE_TOKENS, PREAMBLE_TOKENS, TURN_TOKENS, PromptLengths
from service.engines.remote.server import OpenAIServer
from service.errors import InvalidRequest

ASKED = Conversation(Turn("user", "Hä?"))


def engine(*, schemas: bool = True, logprobs: bool = True) -> ChatEngine:
    return ChatEngine(OpenAIServer("http://127.0.0.1:9"), "m", ChatCapabilities(schemas, logprobs))


def test_an_unknown_prompt_has_a_token_a_byte_and_what_a_template_adds() -> None:
    assert PromptLengths().most(ASKED) == 4 + 2 * TURN_TOKENS + PREAMBLE_TOKENS


def test_a_prompt_that_extends_a_known_one_counts_only_what_is_new() -> None:
    lengths = PromptLengths()
    lengths.learn(ASKED, 9)

    assert lengths.most(ASKED) == 9 + TURN_TOKENS
    assert lengths.most(ASKED.with_reply("Yes.").with_user("No?")) == 9 + 4 + 3 + 3 * TURN_TOKENS


def test_a_server_that_tells_no_length_teaches_nothing() -> None:
    lengths = PromptLengths()
    before = lengths.most(ASKED)
    lengths.learn(ASKED, 0)

    assert lengths.most(ASKED) == before


def test_an_image_counts_as_a_large_one() -> None:
    seeing = Conversation(Turn("user", "Hä?", images=(Image("image/png", b"png"),)))

    assert PromptLengths().most(seeing) == PromptLengths().most(ASKED) + IMAGE_TOKENS


async def test_every_kind_of_call_has_a_bound() -> None:
    prompt = PromptLengths().most(ASKED)
    schema = {"type": "object"}
    in_words = "Reply with JSON that fits this schema, and with nothing else: " + '{"type": "object"}'

    assert await engine().upper_bound(Sample(ASKED, Sampling(max_tokens=9))) == Usage(1, prompt, 0, 9)
    assert await engine().upper_bound(Choose(ASKED, ("A", "B"))) == Usage(1, prompt, 0, 1)
    told = await engine(schemas=False).upper_bound(Sample(ASKED, Sampling(max_tokens=9), schema))
    assert told == Usage(1, prompt + TURN_TOKENS + len(in_words), 0, 9)
    written = await engine(logprobs=False).upper_bound(Choose(ASKED, ("A", "B")))
    assert written == Usage(1, prompt, 0, 16)
    with pytest.raises(InvalidRequest):
        await engine().upper_bound(Weigh(ASKED, "Yes."))
