"""Parameters of queries, and of streams that go on. All raise InvalidRequest, which names the parameter."""

import re
from typing import Annotated

from annotated_types import Ge, Le
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from service.errors import wrong_field
from service.programs.ids import is_id


def read_limit(text: str | None, *, default: int, most: int) -> int:
    """How many a page should have."""
    try:
        return TypeAdapter(Annotated[int, Ge(1), Le(most)]).validate_python(text or default)
    except ValidationError:
        raise wrong_field("limit", f"must be a number from 1 to {most}") from None


def read_name(text: str | None, field: str) -> str | None:
    """An id or another name to look for. No name has control characters, and Postgres takes no text with U+0000."""
    if text is not None and not text.isprintable():
        raise wrong_field(field, "should have printable characters only")
    return text


def read_cursor(text: str | None, field: str, prefix: str = "") -> str | None:
    """The id after which a page begins; None if it is the first page.

    prefix: how the ids in the list begin.

    An id that no list can have had would give a page from anywhere.
    """
    name = read_name(text, field) or None
    if name is not None and not (name.startswith(prefix) and is_id(name)):
        raise wrong_field(field, "must be an id from the page before")
    return name


def read_last_event(request: Request, of: str) -> int:
    """The id of the last event that the client has; 0 if it has none. ``of``: whose events they are, in words."""
    text = request.headers.get("last-event-id")
    if not text:
        return 0
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise wrong_field("last-event-id", f"must be the id of an event of {of}")
    return int(text)
