"""Fenced code blocks, as CommonMark 0.31 defines them (section 4.5)."""

import re
from dataclasses import dataclass

_OPENING = re.compile(r" {0,3}(?P<fence>`{3,}(?=[^`\n]*$)|~{3,})[ \t]*(?P<info>[^\n]*)", re.MULTILINE)
_LANGUAGE = re.compile(r"\{?[ \t]*[.=]?([^\s{},;:]*)")


@dataclass(frozen=True, slots=True)
class Fence:
    """A code block. ``info``: what follows the opening fence. ``content``: the lines up to the closing one."""

    info: str
    content: str

    @property
    def language(self) -> str:
        """The first word of the info string, in lower case: "json" of "JSON title=a", of "{.json #a}" too."""
        found = _LANGUAGE.match(self.info)
        return found[1].lower() if found else ""


def whole_fence(text: str) -> Fence | None:
    """The fenced block that is the whole text, white space around it aside; None where it is anything else.

    The closing fence may also follow the last line of the content, as models write it at times.

    >>> whole_fence("~~~ json\\n[1]\\n~~~")
    Fence(info='json', content='[1]\\n')
    """
    text = re.sub(r"\r\n?", "\n", text).strip("\n\t ")
    opening = _OPENING.match(text)
    if opening is None or opening.end() == len(text):
        return None
    content = text[opening.end() + 1 :]
    fence = opening["fence"]
    closing = re.compile(rf"{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$", re.MULTILINE)
    lines = list(re.finditer(rf"^ {{0,3}}(?={closing.pattern})", content, re.MULTILINE))
    if lines:
        first = lines[0]
        end = closing.match(content, first.end())
        return Fence(opening["info"].strip(), content[: first.start()]) if end and end.end() == len(content) else None
    trailing = len(content) - len(content.rstrip(fence[0]))
    if trailing < len(fence):
        return None
    return Fence(opening["info"].strip(), content[: len(content) - trailing])
