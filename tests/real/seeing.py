"""What every engine does with images whose model takes them. A module with an ``engine`` fixture inherits the class."""

import pytest

from service.concurrency import gather
from service.engines.base import Engine, Sample
from service.engines.conversation import Conversation, Image, Turn
from service.engines.remote import probes
from service.errors import InvalidRequest, PromptTooLong
from service.images.headers import read_image
from tests.images.test_fetch import GIF, JPEG, PNG, WEBP
from tests.real.vision import COST
from tests.support.engine_contract import GREEDY

TEXT = "What is to be seen there? Say it in one sentence. " * 8
GREY = Image("image/png", probes.GREY_PNG)
RED = read_image(PNG)
CUT = read_image(PNG[:-30])
"""Its header says what it should, and its pixels end early."""


def seeing(*images: Image, text: str = TEXT) -> Conversation:
    return Conversation(Turn("user", text, images=images))


class SeeingContract:
    """For the model of tests/real/vision.py with a context of 2,048 tokens."""

    async def test_it_takes_images(self, engine: Engine) -> None:
        assert engine.takes_images

    async def test_an_image_costs_its_tokens_in_the_answer_and_in_the_count(self, engine: Engine) -> None:
        blind = await engine.call(Sample(seeing(), GREEDY))
        one = await engine.call(Sample(seeing(RED), GREEDY))
        two = await engine.call(Sample(seeing(RED, read_image(JPEG)), GREEDY))

        assert one.usage.prompt_tokens == blind.usage.prompt_tokens + COST
        assert two.usage.prompt_tokens == blind.usage.prompt_tokens + 2 * COST
        with pytest.raises(PromptTooLong) as refused:
            await engine.fit(seeing(RED), 2048)
        assert refused.value.prompt_tokens == one.usage.prompt_tokens

    async def test_what_is_shown_decides_what_is_said(self, engine: Engine) -> None:
        said = [(await engine.call(Sample(seeing(*images), GREEDY))).text for images in ((), (GREY,), (RED,))]
        again = await engine.call(Sample(seeing(RED), GREEDY))

        assert len(set(said)) == 3
        assert again.text == said[-1]

    async def test_the_same_image_is_read_from_the_cache_and_another_is_not(self, engine: Engine) -> None:
        shown = seeing(RED, text=f"Once {TEXT}")
        first = await engine.call(Sample(shown, GREEDY))
        longer = await engine.call(Sample(shown.with_user("And its colour?"), GREEDY))
        other = await engine.call(Sample(seeing(GREY, text=f"Once {TEXT}"), GREEDY))
        again = await engine.call(Sample(seeing(RED, text=f"Once {TEXT}"), GREEDY))

        assert longer.usage.cached_tokens > first.usage.prompt_tokens - 64
        assert other.usage.cached_tokens < COST
        assert again.usage.cached_tokens > first.usage.prompt_tokens - 64

    @pytest.mark.parametrize("data", [PNG, JPEG, GIF, WEBP], ids=["png", "jpeg", "gif", "webp"])
    async def test_each_kind_that_is_taken_is_one_that_it_reads(self, data: bytes, engine: Engine) -> None:
        reply = await engine.call(Sample(seeing(read_image(data)), GREEDY))

        assert reply.text

    async def test_an_image_that_ends_early_is_refused(self, engine: Engine) -> None:
        with pytest.raises(InvalidRequest):
            await engine.call(Sample(seeing(CUT), GREEDY))

        assert (await engine.call(Sample(seeing(RED), GREEDY))).text

    async def test_texts_and_images_at_once_cost_what_they_do_alone(self, engine: Engine) -> None:
        asked = [
            seeing(*images, text=f"{number} {TEXT}")
            for number, images in enumerate([(), (RED,), (GREY,), (RED, GREY), (GREY, RED)] * 4)
        ]

        replies = await gather(engine.call(Sample(conversation, GREEDY)) for conversation in asked)

        plain = min(reply.usage.prompt_tokens for reply in replies)
        counts = [round((reply.usage.prompt_tokens - plain) / COST) for reply in replies]
        assert counts == [0, 1, 1, 2, 2] * 4
