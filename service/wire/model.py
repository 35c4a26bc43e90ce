"""What every model of the wire contract's input has in common, and how JSON is written."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_LINE_ENDS = {end: f"\\u{ord(end):04x}" for end in "\u0085\u2028\u2029"}


class WireModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def encode(data: Mapping[str, Any]) -> str:
    """``data`` as JSON in one line. Raises ValueError where a number is not finite."""
    return escape_line_ends(_JSON.encode(data))


def escape_line_ends(document: str) -> str:
    r"""The same JSON without the characters at which many readers of lines cut, though JSON and SSE do not.

    >>> escape_line_ends('{"text":"a\u2028b"}')
    '{"text":"a\\u2028b"}'
    """
    for end, escaped in _LINE_ENDS.items():
        document = document.replace(end, escaped)
    return document


class BodyModel(WireModel):
    """A whole body, which becomes Python values once, before any field is looked at.

    Otherwise each error would hold a copy of its own of the value that it is about: for a field that is missing, of the
    whole object around it.
    """

    @model_validator(mode="before")
    @classmethod
    def _as_python(cls, given: Any) -> Any:
        return given
