"""Images in prompts, placed by the model's own processor.

The processor is given what the chat template writes before a turn's text, and no text: see ``tokenization``. So the ids
of a conversation with images are known before it is sent, count every token of its images, and begin those of a longer
conversation. The prefix cache tells images apart by their digests.

Pixels are kept by vLLM alone, in caches of a bounded size: here what its processor has made of an image, in the
engine's process what it has received. An image is decoded again when it has left the first, and sent again when it has
left the second.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

from service.engines.conversation import Conversation, Image, Turn
from service.engines.thoughts import Thinking
from service.engines.tokenization import ChatTokenizer
from service.errors import InvalidRequest

if TYPE_CHECKING:
    from vllm.inputs.engine import MultiModalInput
    from vllm.v1.engine.async_llm import AsyncLLM

log = logging.getLogger(__name__)

IMAGE = "image"
"""vLLM's name for this kind of input."""


class Pictures:
    """The images of conversations with one model. Make one with ``find``."""

    def __init__(self, llm: "AsyncLLM", chat: ChatTokenizer) -> None:
        self._llm = llm
        self._chat = chat

    @classmethod
    async def find(cls, llm: "AsyncLLM", chat: ChatTokenizer) -> "Pictures | None":
        """None if the model takes no images. Tried with a grey square, because a chat template may have no place for
        images, and some processors do not go by marks."""
        processor = llm.renderer.mm_processor
        if processor is None or llm.model_config.is_encoder_decoder or not processor.info.allowed_mm_limits.get(IMAGE):
            return None
        await llm.get_supported_tasks()  # which vLLM keeps, so that a request is sent without a pause (see lending)
        chat.mark_images_with(lambda number: _mark(llm, number))
        pictures = cls(llm, chat)
        square = Conversation(Turn("user", "", images=(_grey_square(),)))
        try:
            placed = await pictures._placed(square)
        except (InvalidRequest, ValueError) as error:
            log.warning("the model takes images, but they cannot be placed: %s", error)
            return None
        chat.keep_from_texts(placed["prompt_token_ids"])
        return pictures

    async def place(self, conversation: Conversation) -> None:
        """Put the tokens of all images into the conversation's ids. InvalidRequest if the model cannot read one."""
        for beginning in conversation.beginnings():
            if beginning.turn.images and not self._chat.is_placed(beginning):
                self._chat.place(beginning, (await self._placed(beginning))["prompt_token_ids"])

    async def prompt(self, conversation: Conversation, ids: list[int]) -> "MultiModalInput | None":
        """The prompt with ``ids``, which begin with those of the conversation; None if it has no images."""
        from vllm.inputs.engine import mm_input

        found = [(begin, await self._placed(shown)) for begin, shown in self._chat.image_turns(conversation)]
        if not found:
            return None
        # A plain dict, as vLLM itself has after its cache has been asked.
        items: Any = {IMAGE: [item for _, placed in found for item in placed["mm_kwargs"][IMAGE]]}
        hashes = [digest for _, placed in found for digest in placed["mm_hashes"][IMAGE]]
        ranges = [
            replace(place, offset=begin + place.offset)
            for begin, placed in found
            for place in placed["mm_placeholders"][IMAGE]
        ]
        return mm_input(ids, items, {IMAGE: hashes}, {IMAGE: ranges})

    @contextmanager
    def lending(self, prompt: "MultiModalInput") -> Iterator[None]:
        """Leave the images out that the engine's process has. Inside, the prompt is sent before anything is awaited:
        vLLM's two caches have to see images in the same order."""
        items: Any = prompt["mm_kwargs"]
        self._llm.input_processor.inject_into_mm_cache(dict(prompt["mm_hashes"]), items)
        try:
            yield
        except BaseException:  # perhaps it was not sent
            if (cache := self._llm.renderer.mm_processor_cache) is not None:
                for digest in prompt["mm_hashes"][IMAGE]:
                    cache.invalidate(digest)
            raise

    async def _placed(self, conversation: Conversation) -> "MultiModalInput":
        """What the processor makes of the last turn's images and the ids before its text."""
        from vllm.exceptions import VLLMClientError

        images = conversation.turn.images
        ids = self._chat.before_text(conversation)
        if self._llm.renderer.mm_processor_cache is not None:
            with suppress(ValueError):  # it does not keep all of them
                return await self._process(ids, images, [None] * len(images))
        try:
            return await self._process(ids, images, await asyncio.to_thread(_decode, images))
        except VLLMClientError as error:
            raise InvalidRequest(str(error)) from error
        except Exception as error:  # decoders and processors raise anything
            raise InvalidRequest("the model cannot read an image of the request") from error

    async def _process(self, ids: list[int], images: Sequence[Image], pixels: Sequence[Any]) -> "MultiModalInput":
        prompt: Any = {
            "prompt_token_ids": ids,
            "multi_modal_data": {IMAGE: list(pixels)},
            "multi_modal_uuids": {IMAGE: [image.digest for image in images]},
        }
        # Its other cache, which the engine's process has to follow, is asked when the prompt is sent.
        [placed] = await self._llm.renderer.render_cmpl_async([prompt], skip_mm_cache=True)
        made: MultiModalInput = placed
        return made


def with_template(stated: Thinking, tokenizer: Any, model_config: Any) -> Thinking:
    """With the chat template among the variables where it is not in the tokenizer's files: models that take images may
    have it in those of their processor."""
    if not model_config.supports_multimodal_inputs:
        return stated
    from vllm.renderers.hf import resolve_chat_template

    template = resolve_chat_template(tokenizer, None, None, model_config=model_config)
    return replace(stated, variables={"chat_template": template, **stated.variables})


def _mark(llm: "AsyncLLM", number: int) -> str:
    """The mark of a turn's image where the chat template knows texts only."""
    from vllm.model_executor.model_loader import get_model_cls

    mark: str | None = get_model_cls(llm.model_config).get_placeholder_str(IMAGE, number)
    return mark or ""


def _decode(images: Sequence[Image]) -> list[Any]:
    from vllm.multimodal.media.image import ImageMediaIO

    return [ImageMediaIO().load_bytes(image.data) for image in images]


def _grey_square() -> Image:
    from PIL import Image as Pixels

    data = BytesIO()
    Pixels.new("RGB", (64, 64), "grey").save(data, "PNG")
    return Image("image/png", data.getvalue())
