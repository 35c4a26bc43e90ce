"""The parts of a message's content: texts, and images for models that take them. As OpenAI's clients send them.

An image is a ``data:`` URL that holds it, or the https address of one, which images.py fetches.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import Discriminator, Field, PlainSerializer, PlainValidator, Tag

from service.engines.conversation import Image
from service.fail_fast import FAIL_FAST
from service.images.fetch import ImageAddress
from service.images.headers import MOST_BYTES, read_image
from service.outbound import parse_url
from service.wire.model import WireModel

MOST_PARTS = 64
LONGEST_ADDRESS = 2_048
_DATA_URL = re.compile(r"data:image/[a-z.+-]{1,32};base64,", re.IGNORECASE)


def _image_or_address(given: Any) -> Image | ImageAddress:
    if not isinstance(given, str):
        raise ValueError("Input should be a valid string")  # noqa: TRY004 - pydantic tells the caller of it
    if given[:5].lower() != "data:":
        if len(given) > LONGEST_ADDRESS:
            raise ValueError(f"an address may have at most {LONGEST_ADDRESS} characters")
        return ImageAddress(*parse_url(given))
    if (head := _DATA_URL.match(given)) is None:
        raise ValueError("expected data:image/…;base64,…")
    if (len(given) - head.end()) * 3 // 4 > MOST_BYTES + 2:  # as much as padding adds
        raise ValueError(f"an image may have at most {MOST_BYTES} bytes")
    try:
        data = base64.b64decode(given[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("what follows base64, is not base64") from None
    return read_image(data)


def _describe(image: Image | ImageAddress) -> Any:
    """What is kept of an image where its request is kept."""
    if isinstance(image, ImageAddress):
        return str(image.url)
    return {"media_type": image.media_type, "digest": image.digest}


class TextPart(WireModel):
    type: Literal["text"]
    text: str


class ImageUrl(WireModel):
    """``detail`` is OpenAI's, and nothing follows from it: an engine reads an image as its model does."""

    url: Annotated[Any, PlainValidator(_image_or_address, json_schema_input_type=str), PlainSerializer(_describe)]
    detail: str | None = None


class ImagePart(WireModel):
    type: Literal["image_url"]
    image_url: ImageUrl

    def fetched(self, images: Mapping[ImageAddress, Image]) -> "ImagePart":
        if isinstance(self.image_url.url, Image):
            return self
        image_url = self.image_url.model_copy(update={"url": images[self.image_url.url]})
        return self.model_copy(update={"image_url": image_url})


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
Parts = Annotated[tuple[Part, ...], Len(1, MOST_PARTS), FAIL_FAST]


def _form(content: object) -> str | None:
    if isinstance(content, str):
        return "text"
    return "parts" if isinstance(content, list | tuple) else None


Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[Parts, Tag("parts")],
    Discriminator(
        _form, custom_error_type="content_form", custom_error_message="Input should be a text or a list of parts"
    ),
]
"""What a message says: a text, or parts."""


def text_of(content: Content) -> str:
    """The texts of all parts as one."""
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if isinstance(part, TextPart))


def images_of(content: Content) -> Iterator[tuple[int, Image | ImageAddress]]:
    """The images with the indices of their parts."""
    for index, part in enumerate(() if isinstance(content, str) else content):
        if isinstance(part, ImagePart):
            yield index, part.image_url.url


def with_images(content: Content, fetched: Mapping[ImageAddress, Image]) -> Content:
    """The content with images in place of their addresses."""
    if isinstance(content, str):
        return content
    return tuple(part.fetched(fetched) if isinstance(part, ImagePart) else part for part in content)
