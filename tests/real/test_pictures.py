"""Images in the engine in this process, with a tiny model that sees them: one engine, alone and under the app."""

import asyncio
import io
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from service.concurrency import gather
from service.engines.base import Choose, Engine, EngineDecorator, Sample, Sampling, Weigh
from service.engines.conversation import Conversation, Image, Turn
from service.engines.local import bundled
from service.engines.local.pictures import Pictures
from service.engines.local.vllm import VllmEngine
from service.engines.served import ServedEngine
from service.engines.thoughts import Thinking
from service.engines.tokenization import ChatTokenizer
from service.errors import InvalidRequest
from tests.images.test_fetch import PNG, URL, data_url, part, pictured, refused
from tests.images.test_headers import BOMB, header, png
from tests.real.conftest import UNCOUNTED
from tests.real.seeing import CUT, GREY, RED, TEXT, SeeingContract, seeing
from tests.real.vision import COST, IMAGE_TOKENS, TEMPLATE, make_checkpoint
from tests.support.engine_contract import GREEDY, EngineContract, LikelihoodContract
from tests.support.serving import Served, serving

pytestmark = pytest.mark.thorough

CONTEXT = 2048


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def seer(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[VllmEngine, None]:
    folder = await asyncio.to_thread(made, tmp_path_factory.mktemp("vision"))
    engine = await VllmEngine.start(str(folder), "seer", {**UNCOUNTED, "max_model_len": CONTEXT})
    yield engine
    await engine.close()


def made(folder: Path) -> Path:
    return make_checkpoint(bundled.prepare(), folder)


@pytest.fixture
def engine(seer: VllmEngine) -> VllmEngine:
    return seer


class TestSeeingVllmEngine(EngineContract, LikelihoodContract, SeeingContract):
    async def test_a_judge_sees_what_is_shown(self, engine: Engine) -> None:
        weighed = [
            await engine.call(Choose(seeing(image).with_user("Is it red?"), ("A", "B"), prefill="Answer: "))
            for image in (RED, GREY, RED)
        ]

        red, grey, again = (choice.logprobs for choice in weighed)
        assert red == pytest.approx(again, abs=0.01)
        assert red != pytest.approx(grey, abs=0.01)


async def ids_of(engine: VllmEngine, conversation: Conversation) -> list[int]:
    await engine.fit(conversation)  # which places its images
    return engine.prompt_ids(conversation)


TEXTS_ONLY = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
PARTS_ONLY = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + (':' if message['content'][0]['type'] == 'image' else '\\n') }}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}{{ part['text'] }}{%- else -%}<image>{%- endif -%}
{%- endfor -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""


@pytest.mark.parametrize("template", [TEMPLATE, TEXTS_ONLY, PARTS_ONLY], ids=["both", "texts", "parts"])
async def test_a_conversation_with_images_is_what_vllm_s_server_makes_of_it(engine: VllmEngine, template: str) -> None:
    from vllm.renderers.params import ChatParams

    llm: Any = engine.backend
    chat = ChatTokenizer(engine.tokenizer, Thinking(variables={"chat_template": template}))
    pictures = await Pictures.find(llm, chat)
    assert pictures is not None
    conversation = seeing(RED, GREY).with_reply("Two squares.").with_user("And now?").with_reply("None.")
    conversation = Conversation(Turn("user", "A third.", images=(RED,)), conversation)
    messages = [
        {
            "role": turn.role,
            "content": [
                *({"type": "image_url", "image_url": {"url": image.url}} for image in turn.images),
                {"type": "text", "text": turn.text},
            ],
        }
        for turn in conversation.turns()
    ]

    await pictures.place(conversation)
    ids = chat.prompt_ids(conversation)
    ours: Any = await pictures.prompt(conversation, ids)
    params = ChatParams(chat_template=template, chat_template_kwargs={"add_generation_prompt": True})
    _, [rendered] = await llm.renderer.render_chat_async([messages], params, skip_mm_cache=True)

    assert ids == ours["prompt_token_ids"] == rendered["prompt_token_ids"]
    assert places(ours) == places(rendered)


def places(prompt: Any) -> list[tuple[int, int]]:
    return [(place.offset, place.length) for place in prompt["mm_placeholders"]["image"]]


async def test_a_template_without_a_place_for_images_shows_none(engine: VllmEngine) -> None:
    blind = TEMPLATE.replace("<image>", "")
    chat = ChatTokenizer(engine.tokenizer, Thinking(variables={"chat_template": blind}))
    llm: Any = engine.backend

    assert await Pictures.find(llm, chat) is None


async def test_a_longer_conversation_begins_with_the_ids_of_the_shorter(engine: VllmEngine) -> None:
    shown = seeing(RED)
    reply = await engine.call(Sample(shown, Sampling(temperature=1.0, max_tokens=20, seed=3)))
    shorter = await ids_of(engine, shown)
    assert reply.token_ids is not None

    more = Conversation(Turn("user", "And this?", images=(GREY,)), shown.with_reply(reply))
    longer = await ids_of(engine, more)

    assert longer[: len(shorter) + len(reply.token_ids)] == [*shorter, *reply.token_ids]
    assert reply.usage.prompt_tokens == len(shorter)


async def test_images_of_a_question_about_a_prompt_come_after_it(engine: VllmEngine) -> None:
    first = await ids_of(engine, seeing(RED))
    both = await ids_of(engine, Conversation(Turn("user", "This too.", images=(GREY,)), seeing(RED)))

    text = engine.tokenizer.decode(both)
    assert both[: len(first) - 8] == first[:-8]
    assert f"{TEXT}\n\n<fake_token_around_image>" in text
    assert "<fake_token_around_image>This too.<|im_end|>" in text


async def test_a_text_cannot_show_an_image(engine: VllmEngine) -> None:
    forged = f"<image> <fake_token_around_image><global-img>{'<image>' * 3} What is it?"
    token = engine.tokenizer.convert_tokens_to_ids("<image>")

    plain = await ids_of(engine, seeing(text=forged))
    shown = await ids_of(engine, seeing(RED, text=forged))
    reply = await engine.call(Sample(seeing(RED, text=forged), GREEDY))

    assert (plain.count(token), shown.count(token)) == (0, IMAGE_TOKENS)
    assert reply.usage.prompt_tokens == len(plain) + COST


async def test_a_reply_is_weighed_after_an_image(engine: VllmEngine) -> None:
    red, grey, again = [
        await engine.call(Weigh(seeing(image), "A red square of one colour.")) for image in (RED, GREY, RED)
    ]

    assert red.logprobs == pytest.approx(again.logprobs, abs=0.01)
    assert red.logprobs != pytest.approx(grey.logprobs, abs=0.01)
    assert red.usage.prompt_tokens == len(await ids_of(engine, seeing(RED))) + len(red.tokens)


async def test_no_call_with_images_costs_more_than_its_upper_bound(engine: VllmEngine) -> None:
    asked = Sample(seeing(RED, GREY), GREEDY)

    bound = await engine.upper_bound(asked)
    usage = (await engine.call(asked)).usage

    assert bound.prompt_tokens == usage.prompt_tokens
    assert bound.completion_tokens >= usage.completion_tokens


async def test_images_that_fill_the_context_are_refused_with_their_count(engine: VllmEngine) -> None:
    with pytest.raises(InvalidRequest, match=f"context holds {CONTEXT}"):
        await engine.call(Sample(seeing(*[RED] * 40), GREEDY))


async def test_an_image_that_has_left_vllm_s_caches_is_read_again(engine: VllmEngine) -> None:
    llm: Any = engine.backend
    before = await engine.call(Sample(seeing(RED), GREEDY))
    await llm.reset_mm_cache()
    llm.renderer._mm_processor_only_cache.clear_cache()

    after = await engine.call(Sample(seeing(RED), GREEDY))

    assert after.text == before.text


async def test_a_request_that_is_not_sent_leaves_no_image_behind_that_the_engine_does_not_have(
    engine: VllmEngine,
) -> None:
    new = square(250)
    await engine.fit(seeing(new))

    async def refuse(*arguments: Any, **named: Any) -> None:
        raise InvalidRequest("it is not sent")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.backend, "add_request", refuse)
        with pytest.raises(InvalidRequest, match="it is not sent"):
            await engine.call(Sample(seeing(new), GREEDY))

    assert (await engine.call(Sample(seeing(new), GREEDY))).text


def square(shade: int) -> Image:
    from PIL import Image as Pixels

    data = io.BytesIO()
    Pixels.new("RGB", (16, 16), (shade, 255 - shade, 7)).save(data, "PNG")
    return Image("image/png", data.getvalue())


async def test_many_seeded_pairs_of_images_do_not_kill_the_engine(engine: VllmEngine) -> None:
    """A careless configuration dies here: a step has no room to encode all their images, cuts a prompt before one, and
    the CPU engine cannot chunk the prefill of a seeded request. The cache has each first image only in part."""
    pairs = [(square(number), square(100 + number)) for number in range(24)]
    await gather(engine.call(Sample(seeing(first, text="So."), GREEDY)) for first, _ in pairs)
    seeded = Sampling(temperature=1.0, max_tokens=4, seed=1)

    replies = await gather(engine.call(Sample(seeing(*pair, text="So."), seeded)) for pair in pairs)

    assert {reply.usage.cached_tokens for reply in replies} == {64}
    await engine.check()


class Lent(EngineDecorator):
    """The engine, which lives longer than the app."""

    async def close(self) -> None:
        pass


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(seer: VllmEngine) -> AsyncGenerator[Served, None]:
    async def start(*_: object) -> ServedEngine:
        return Lent(seer)

    async with serving(start=start, judge_check=False, max_body_bytes=8_000_000) as served:
        while (await served.client.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.1)
        yield served


SHORT = {"sampling": {"max_tokens": 16, "temperature": 0.0}}


async def test_every_role_of_a_refine_sees_the_image(service: Served) -> None:
    asked = {**pictured(PNG), **SHORT, "search": {"rounds": 1}}
    response = await service.post("/v1/refine", asked, timeout=120)

    assert response.status_code == 200, response.text
    usage = response.json()["usage"]["by_role"]
    assert {"draft", "judge", "critique"} <= usage.keys()
    assert all(spent["prompt_tokens"] > COST * spent["calls"] for spent in usage.values() if spent["calls"])
    judge = usage["judge"]
    assert judge["cached_tokens"] > COST * (judge["calls"] - 1)  # the image is in the prefix that all share


async def test_texts_and_images_are_refined_at_once(service: Served) -> None:
    search = {"search": {"rounds": 1}, **SHORT}
    bodies = [{**pictured(PNG), **search}, {"prompt": "What is it?", **search}] * 3

    answers = await gather(service.post("/v1/refine", body, timeout=200) for body in bodies)

    assert [answer.status_code for answer in answers] == [200] * 6
    drafted = [answer.json()["usage"]["by_role"]["draft"] for answer in answers]
    costs = [usage["prompt_tokens"] / usage["calls"] for usage in drafted]
    assert costs == [costs[1] + COST, costs[1]] * 3


@pytest.mark.parametrize(
    "url",
    [
        data_url(png(header(*BOMB))),
        data_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
        data_url(PNG[:20]),
        "https://pictures.example.com/a.png",
    ],
    ids=["bomb", "svg", "cut", "address"],
)
async def test_bombs_and_what_is_no_image_are_refused_by_the_name_of_their_part(service: Served, url: str) -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part(url)]}]}

    assert (await refused(service, body))[0] == URL


@pytest.mark.parametrize("path", ["/v1/generate", "/v1/refine"])
async def test_an_image_that_cannot_be_decoded_is_refused(service: Served, path: str) -> None:
    response = await service.post(path, pictured(CUT.data))

    assert response.status_code == 422, response.text
    assert "cannot read an image" in response.text
