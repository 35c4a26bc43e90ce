"""The ``Prefer`` header (RFC 7240)."""

import re
from collections.abc import Mapping

from starlette.requests import Request

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_SPACE = r"[ \t]*+"
# What is not quoted may be more than a token, since URLs are often sent so. Possessive, so that it takes linear time.
_ITEM = re.compile(
    rf'[ \t,;]*+({_NAME}){_SPACE}(?:={_SPACE}({_QUOTED}|[^ \t",;]++)?)?{_SPACE}([,;]|$)',
)


def read_preferences(request: Request) -> Mapping[str, Mapping[str, str]]:
    """The parameters of each preference, by their names in lower case. What follows something malformed is ignored, and
    so is a preference that is repeated."""
    return parse_preferences(", ".join(request.headers.getlist("prefer")))


def parse_preferences(text: str) -> Mapping[str, Mapping[str, str]]:
    """The same of the header's value.

    >>> parse_preferences('respond-async, callback; url="https://hooks.example.com/a,b"')
    {'respond-async': {}, 'callback': {'url': 'https://hooks.example.com/a,b'}}
    """
    found: dict[str, dict[str, str]] = {}
    parameters: dict[str, str] | None = None
    at = 0
    while at < len(text) and (item := _ITEM.match(text, at)):
        name, value = item[1].lower(), _unquote(item[2] or "")
        if parameters is None:
            parameters = {}
            found.setdefault(name, parameters)
        else:
            parameters.setdefault(name, value)
        if item[3] != ";":
            parameters = None
        at = item.end()
    return found


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
