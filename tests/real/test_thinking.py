"""vLLM's reasoning parsers on a real engine and in a real server, with a model that ends its thoughts by itself."""

import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from service.engines.base import Choose, Completion, Sample, Sampling
from service.engines.local import bundled
from service.engines.local.reasoning import Reasoning
from service.engines.local.vllm import VllmEngine
from service.engines.siblings import sample_siblings
from service.engines.thoughts import Thinking
from tests.real.conftest import UNCOUNTED
from tests.real.thinking import END, make_checkpoint
from tests.support.engine_contract import QUESTION, ThinkingContract

pytestmark = pytest.mark.thorough

FORM = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
NAMES = ("auto", "deepseek_r1", "qwen3", "glm45", "minimax_m2", "olmo3", "step3")
ASKED = Sampling(temperature=0.0, max_tokens=60)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(bundled.prepare(), tmp_path_factory.mktemp("thinker"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def thinker(checkpoint: Path) -> AsyncGenerator[VllmEngine, None]:
    engine = await VllmEngine.start(str(checkpoint), "thinker", {**UNCOUNTED, "max_model_len": 2048})
    yield engine
    await engine.close()


class TestThinkingVllmEngine(ThinkingContract):
    @pytest.fixture
    def engine(self, thinker: VllmEngine) -> VllmEngine:
        return thinker


async def test_the_template_shows_how_the_model_thinks(thinker: VllmEngine) -> None:
    free = thinker.tokenizer.decode(thinker.prompt_ids(QUESTION))
    direct = thinker.tokenizer.decode(thinker.prompt_ids(QUESTION, thinking=False))

    assert free.endswith("<|im_start|>assistant\n<think>First,")
    assert direct.endswith("<|im_start|>assistant\n<think>\n</think>\n\n")


async def test_a_grammar_begins_after_the_thoughts(thinker: VllmEngine) -> None:
    shaped = await thinker.call(Sample(QUESTION, ASKED, FORM))
    chosen = await thinker.call(Sample(QUESTION, Sampling(temperature=0.0, max_tokens=60, choices=("yes", "no"))))

    assert json.loads(shaped.text)["colour"] in ("red", "green")
    assert chosen.text in ("yes", "no")
    assert shaped.thoughts == chosen.thoughts != ""


async def test_a_grammar_begins_at_once_where_the_model_is_asked_not_to_think(thinker: VllmEngine) -> None:
    shaped = await thinker.call(Sample(QUESTION, Sampling(temperature=0.0, max_tokens=60, thinking=False), FORM))

    assert json.loads(shaped.text)["colour"] in ("red", "green")
    assert shaped.thoughts == ""


async def test_a_judge_s_answer_is_no_thought(thinker: VllmEngine) -> None:
    asked = QUESTION.with_user("How hard is that, from 1 to 5?")

    choice = await thinker.call(Choose(asked, ("1", "2"), prefill="Rating: "))

    assert choice.usage.prompt_tokens == len(thinker.prompt_ids(asked, "Rating: ", thinking=False))


async def test_the_prompt_of_a_longer_conversation_has_no_thoughts(thinker: VllmEngine) -> None:
    reply = await thinker.call(Sample(QUESTION, ASKED))

    ids = thinker.prompt_ids(QUESTION.with_reply(reply).with_user("And then?"))

    request = thinker.tokenizer.decode(thinker.prompt_ids(QUESTION)).removesuffix("<think>First,")
    assert thinker.tokenizer.decode(ids).startswith(f"{request}{reply.text}<|im_end|>")


def pieces_of(sampled: Sequence[int], size: int) -> list[Sequence[int]]:
    return [sampled[begin : begin + size] for begin in range(0, len(sampled), size)]


@pytest.mark.parametrize("name", NAMES)
async def test_parsers_by_their_names_split_alike_whole_and_streamed(thinker: VllmEngine, name: str) -> None:
    tokenizer, stated = thinker.tokenizer, Thinking(name)
    parser = Reasoning("deepseek_r1" if name == "auto" else name, tokenizer, thinker._llm.model_config, stated)
    prompt = thinker.prompt_ids(QUESTION)
    sampled = [*tokenizer.encode(" red is warm. Hm"), END, *tokenizer.encode("\n\nRed, of course."), 2]

    found = []
    for size in (1, 2, 3, len(sampled)):
        whole = size == len(sampled)
        reader = parser.reader(prompt, True, thinker._chat.habit.splitter(), whole=whole)
        for ids in pieces_of(sampled, size):
            reader.feed(tokenizer.decode([token for token in ids if token != 2]), ids)
        found.append(reader.end("stop")[1])

    assert {(split.text, split.thoughts, split.finish_reason) for split in found} == {
        ("Red, of course.", "red is warm. Hm", "stop")
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("whole", [True, False])
async def test_parsers_find_no_text_in_thoughts_that_were_cut(thinker: VllmEngine, name: str, whole: bool) -> None:
    tokenizer = thinker.tokenizer
    parser = Reasoning("deepseek_r1" if name == "auto" else name, tokenizer, thinker._llm.model_config, Thinking(name))
    sampled = tokenizer.encode(" red is warm. Hm, bl")

    reader = parser.reader(thinker.prompt_ids(QUESTION), True, thinker._chat.habit.splitter(), whole=whole)
    for ids in pieces_of(sampled, len(sampled) if whole else 2):
        reader.feed(tokenizer.decode(ids), ids)
    split = reader.end("length")[1]

    assert (split.text, split.thoughts, split.finish_reason) == ("", "red is warm. Hm, bl", "length")


async def test_a_reply_without_marks_is_an_answer_after_a_prompt_that_opens_none(thinker: VllmEngine) -> None:
    tokenizer = thinker.tokenizer
    parser = Reasoning("deepseek_r1", tokenizer, thinker._llm.model_config, Thinking())
    ids = tokenizer.encode("Red, of course.")

    reader = parser.reader(tokenizer.encode("Which?"), False, thinker._chat.habit.splitter(way="direct"), whole=True)
    reader.feed("Red, of course.", ids)

    assert reader.end("stop")[1].text == "Red, of course."


async def test_siblings_think_apart(thinker: VllmEngine) -> None:
    replies = await sample_siblings(thinker, Sample(QUESTION, Sampling(temperature=1.0, max_tokens=60, seed=1)), 4)

    assert len({reply.thoughts for reply in replies}) > 1
    assert all(isinstance(reply, Completion) and "<think>" not in reply.text for reply in replies)
