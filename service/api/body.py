"""Request bodies: decoded by pydantic-core's own JSON parser, and described in the OpenAPI document.

FastAPI would parse a body with ``json`` and validate the result leniently; here a body is parsed and validated
in one strict step, so routes say what FastAPI documents.
"""

import asyncio
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from pydantic_core import from_json
from starlette.requests import Request

from service.api import structure
from service.api.idempotency import KEY_PARAMETER, note_body
from service.api.intake import Intake
from service.api.problems import list_errors, name_fields
from service.errors import FieldError, InvalidRequest, MalformedBody
from service.evaluators.text.patterns import TooMuchToCompile, limit_compiling

REF_TEMPLATE = "#/components/schemas/{model}"

LARGE_BODY_BYTES = 16_384
"""A body that is larger is decoded in a thread."""
LOOP_WORK = 5_000
"""So is a body whose schemas and patterns take more work to compile: a few milliseconds."""

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


def decode(model: type[M], body: bytes, content_type: str | None) -> M:
    """The model that ``body`` holds. ``content_type`` is None where the body is known to be JSON.

    Raises BodyTooLarge, MalformedBody or InvalidRequest.
    """
    if content_type is not None and not _is_json(content_type):
        wrong = FieldError("content-type", "must be application/json")
        raise InvalidRequest("the body must be sent as application/json", [wrong])
    structure.check(body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found = list_errors(error)  # the error itself holds every wrong value, and ends here
    except RecursionError:
        raise MalformedBody("the body is nested too deeply") from None
    try:
        given = from_json(body)
    except ValueError as error:
        raise MalformedBody(f"the body is not JSON: {error}") from None
    raise name_fields(found, given)


async def read_json(request: Request, model: type[M]) -> M:
    """The model that the request's body holds. Raises what ``decode`` and Intake.body raise."""
    return await read_body(request, partial(decode, model))


async def read_body(request: Request, decoder: Callable[[bytes, str], T]) -> T:
    """What ``decoder`` makes of the request's body and its content type, which is "" if it is missing.

    A web page may send a body without a type to any address, and without asking first, so such a body is refused.
    """
    content_type = request.headers.get("content-type", "")

    def take(body: bytes) -> T:
        note_body(request, body)
        return decoder(body, content_type)

    async with _intake(request).body(request) as body:
        return await decode_bounded(take, body)


def _intake(request: Request) -> Intake:
    """What the app's requests share; an app without one has no bound."""
    return getattr(request.state, "intake", None) or Intake(sys.maxsize, 3600.0, on_shed=lambda reason: None)


async def decode_bounded(decoder: Callable[[bytes], T], body: bytes) -> T:
    """What ``decoder`` makes of a body; in a thread if that takes long, so that other requests do not wait for it.

    Raises InvalidRequest where the body's patterns and schemas take more work to compile than a request may cause.
    """
    if len(body) <= LARGE_BODY_BYTES:
        try:
            with limit_compiling(LOOP_WORK):
                return decoder(body)
        except TooMuchToCompile:
            pass
    return await asyncio.to_thread(_decode_at_length, decoder, body)


def _decode_at_length(decoder: Callable[[bytes], T], body: bytes) -> T:
    try:
        with limit_compiling():
            return decoder(body)
    except TooMuchToCompile:
        raise InvalidRequest("the patterns and schemas of the request take too long to compile") from None


def json_body(model: type[BaseModel], **content: Any) -> dict[str, Any]:
    """The ``openapi_extra`` of a route that reads ``model``, or ``content`` by other media types. The schema that it
    refers to is in the document of a DescribedApp."""
    schema = {"$ref": schema_ref(model)}
    body = {"required": True, "content": {"application/json": {"schema": schema}, **content}}
    return {"requestBody": body, "parameters": [KEY_PARAMETER]}


def schema_ref(model: type[BaseModel]) -> str:
    """Where the OpenAPI document of a DescribedApp has the model's schema."""
    return REF_TEMPLATE.format(model=model.__name__)


class DescribedApp(FastAPI):
    """An app whose OpenAPI document also has the schemas of ``bodies``, which its routes read by themselves.

    The document is made when it is first asked for, in a quarter of a second.
    """

    def __init__(self, bodies: Iterable[type[BaseModel]], **fields: Any) -> None:
        super().__init__(**fields)
        self._bodies = bodies

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document. Raises ValueError if two schemas have the same name."""
        if self.openapi_schema is None:
            document = super().openapi()
            _add_schemas(document, self._bodies)
        return super().openapi()


def _add_schemas(document: dict[str, Any], models: Iterable[type[BaseModel]]) -> None:
    _, found = models_json_schema([(model, "validation") for model in models], ref_template=REF_TEMPLATE)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name, schema in found.get("$defs", {}).items():
        if schemas.setdefault(name, schema) != schema:
            raise ValueError(f"two schemas are called {name}")


def media_type_of(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_json(content_type: str) -> bool:
    media_type = media_type_of(content_type)
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))
