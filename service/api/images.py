"""A request's images, before it is admitted: whether its models take any, and the fetching of those at addresses."""

from typing import TypeVar

from service.api.state import AppState
from service.concurrency import gather
from service.engines.conversation import Image
from service.errors import FieldError, wrong_fields
from service.images.fetch import ImageAddress
from service.wire.requests import CommonFields, images_in

C = TypeVar("C", bound=CommonFields)


async def fetch_images(state: AppState, request: C) -> C:
    """The request with its images at hand. InvalidRequest, which names the parts, where that cannot be."""
    messages = request.messages or ()
    found = {f"messages.{index}.content.{at}.image_url.url": image for index, at, image in images_in(messages)}
    if not found:
        return request
    roles = state.runner.roles(state.served.of(request))
    for engine in (roles.writer, roles.critic, roles.judge):
        if not engine.takes_images:
            raise wrong_fields([FieldError(name, f"the model {engine.model} takes no images") for name in found])
    fetched: dict[ImageAddress, Image] = {}
    wrong: list[FieldError] = []

    async def fetch(name: str, address: ImageAddress) -> None:
        try:
            fetched[address] = await state.images.fetch(address)
        except ValueError as error:
            wrong.append(FieldError(name, str(error)))

    await gather(fetch(name, image) for name, image in found.items() if isinstance(image, ImageAddress))
    if wrong:
        raise wrong_fields(wrong)
    return request.model_copy(update={"messages": tuple(message.with_images(fetched) for message in messages)})
