"""A request's images, before it is admitted: whether its models take any, and the fetching of those at addresses."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.requests import Request

from service.api import body
from service.api.state import desk_of
from service.concurrency import gather
from service.engines.conversation import Image
from service.errors import FieldError, wrong_fields
from service.images.fetch import ImageAddress
from service.wire.requests import CommonFields, images_in

C = TypeVar("C", bound=CommonFields)


def decoded(model: type[C]) -> Callable[[Request], Awaitable[C]]:
    """A dependency that reads the request's body, as ``body.decoded`` does, and sees to its images."""
    decode = body.decoded(model)

    async def dependency(request: Request) -> C:
        return await with_images(request, await decode(request))

    return dependency


async def with_images(request: Request, wanted: C) -> C:
    """What is wanted, with its images at hand. InvalidRequest, which names the parts, where that cannot be."""
    messages = wanted.messages or ()
    found = {f"messages.{index}.content.{at}.image_url.url": image for index, at, image in images_in(messages)}
    if not found:
        return wanted
    desk = desk_of(request)
    roles = desk.roles(desk.served.of(wanted))
    for engine in (roles.writer, roles.critic, roles.judge):
        if not engine.takes_images:
            raise wrong_fields([FieldError(name, f"the model {engine.model} takes no images") for name in found])
    fetched: dict[ImageAddress, Image] = {}
    wrong: list[FieldError] = []

    async def fetch(name: str, address: ImageAddress) -> None:
        try:
            fetched[address] = await desk.images.fetch(address)
        except ValueError as error:
            wrong.append(FieldError(name, str(error)))

    await gather(fetch(name, image) for name, image in found.items() if isinstance(image, ImageAddress))
    if wrong:
        raise wrong_fields(wrong)
    return wanted.model_copy(update={"messages": tuple(message.with_images(fetched) for message in messages)})
