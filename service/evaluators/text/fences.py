"""Fenced code blocks of Markdown, as CommonMark 0.31 defines them (section 4.5), read line by line.

A fence is three or more backticks or tildes. The one that closes a block has the same character, is at least as long,
is indented by at most three columns more than the block, and has nothing after it. So a fence in a docstring, which is
indented by four, closes nothing. Without a closing fence a block extends to the end of the text, or of its quotation.

Models do not always write correct Markdown, so two rules are wider than CommonMark's. A fence opens a block at any
indentation, even where CommonMark would see indented code. A line of a block in a list may be indented by less than the
list.

Time and memory are linear in the text, and every single step is short, so that other threads can run in between.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os.path import commonprefix

_QUOTED = re.compile(r" {0,3}+>[ \t]?+")
_LISTED = re.compile(r"[ \t]*+(?:[-+*]|\d{1,9}+[.)])[ \t]++(?=[`~])")
"""The marker of a list item with a fence on the same line."""
_OPENING = re.compile(r"(?P<fence>`{3,}+|~{3,}+)(?P<info>.*+)", re.DOTALL)
_WORD = re.compile(r"[\w.+#-]*+")
_TAB_COLUMNS = 4
_DEEPEST_QUOTATION = 20


@dataclass(frozen=True, slots=True)
class Fence:
    """A fenced block.

    info: the rest of its opening line, after the fence.
    body: its lines with their line ends, without the indentation of the fence.
    closed: whether a closing fence ends it.

    >>> [block] = fenced_blocks("Here:\\n```python title=a.py\\nx = 1\\n```\\n")
    >>> block.language, block.body, block.closed
    ('python', 'x = 1\\n', True)
    """

    info: str
    body: str
    closed: bool

    @property
    def language(self) -> str:
        """The language that ``info`` names, in lower case; "" for none.

        It is "python" for ``python``, ``Python title=a.py``, ``{.python .numberLines}``, ``{=python}`` and
        ``python,ignore``.
        """
        words = self.info.strip("{} \t").split()
        classes = [word for word in words if word.startswith(".")]
        found = _WORD.match((classes or words or [""])[0].lstrip(".="))
        return found[0].lower() if found else ""


@dataclass(frozen=True, slots=True)
class _Opening:
    fence: str
    info: str
    indent: int
    quotations: int


def fenced_blocks(text: str) -> list[Fence]:
    """The blocks of a text, in order."""
    lines = iter(text.split("\n"))
    return [_read_block(opening, lines) for line in lines if (opening := _parse_opening(line))]


def whole_fence(text: str) -> Fence | None:
    """The block that makes up the whole text, apart from white space around it; None if there is anything else.

    The closing fence may also come at the end of the body's last line, as models sometimes write it.

    >>> whole_fence("~~~ json\\n[1]\\n~~~")
    Fence(info='json', body='[1]\\n', closed=True)
    """
    first, *rest = re.sub(r"\r\n?", "\n", text).strip("\n\t ").split("\n")
    opening = _parse_opening(first) if first.startswith(("`", "~")) else None
    if opening is None or not rest:
        return None
    lines = iter(rest)
    block = _read_block(opening, lines)
    if block.closed:
        return block if next(lines, None) is None else None
    body = block.body.rstrip(opening.fence[0])
    return Fence(block.info, body, closed=True) if len(block.body) - len(body) >= len(opening.fence) else None


def are_fenced(lines: Sequence[str]) -> Sequence[bool]:
    """For each line of a text, whether it belongs to a block. Fences do.

    A fence that nothing closes does not begin a block here, because a line of tildes may be an ornament. A block that
    is the whole text does not count either.

    >>> are_fenced(["Here:", "```", "x = 1", "```"])
    [False, True, True, True]
    """
    fenced = [False] * len(lines)
    start, blocks, opening = 0, 0, None
    for at, line in enumerate(lines):
        if opening is None:
            start, opening = at, _parse_opening(line)
        elif _strip_quotations(line, opening.quotations)[1] < opening.quotations:  # the end of the quotation
            fenced[start:at] = [True] * (at - start)
            start, blocks, opening = at, blocks + 1, _parse_opening(line)
        elif _is_closing(_strip_quotations(line, opening.quotations)[0], opening):
            fenced[start : at + 1] = [True] * (at + 1 - start)
            opening, blocks = None, blocks + 1
    is_whole = blocks == 1 and all(known or not line.strip() for line, known in zip(lines, fenced, strict=True))
    return [False] * len(lines) if is_whole else fenced


def _parse_opening(line: str) -> _Opening | None:
    if "```" not in line and "~~~" not in line:
        return None
    rest, quotations = _strip_quotations(line, _DEEPEST_QUOTATION)
    listed = _LISTED.match(rest)
    start = listed.end() if listed else _indentation(rest)
    found = _OPENING.match(rest, start)
    if not found or (found["fence"][0] == "`" and "`" in found["info"]):  # "```x```" is code within a line
        return None
    return _Opening(found["fence"], found["info"].strip(), _count_columns(rest[:start]), quotations)


def _read_block(opening: _Opening, lines: Iterator[str]) -> Fence:
    """Read the lines up to and including the closing fence."""
    body: list[str] = []
    for line in lines:
        rest, quotations = _strip_quotations(line, opening.quotations)
        if quotations < opening.quotations:  # the end of the quotation
            return Fence(opening.info, "".join(body), closed=False)
        if _is_closing(rest, opening):
            return Fence(opening.info, "".join(body), closed=True)
        body.append(_outdent(rest, opening.indent) + "\n")
    return Fence(opening.info, "".join(body)[:-1], closed=False)  # the last line has no end


def _is_closing(line: str, opening: _Opening) -> bool:
    fence = line.strip(" \t\r")
    if len(fence) < len(opening.fence) or fence.strip(opening.fence[0]):
        return False
    # A fence that is indented by up to three columns need not be in a list; one by more is taken to be in one.
    deepest = opening.indent + 3 if opening.indent > 3 else 3
    return _count_columns(line[: _indentation(line)]) <= deepest


def _strip_quotations(line: str, most: int) -> tuple[str, int]:
    """The line without its quotation marks (">"), of which at most ``most`` are removed, and how many were removed."""
    start = count = 0
    while count < most and (mark := _QUOTED.match(line, start)):
        start, count = mark.end(), count + 1
    return line[start:], count


def _indentation(line: str) -> int:
    """The index of the first character that is not a blank."""
    return len(line) - len(line.lstrip(" \t"))


def _count_columns(blanks: str) -> int:
    return len(blanks.expandtabs(_TAB_COLUMNS))


def _outdent(line: str, columns: int) -> str:
    """The line without the blanks of its first columns. A tab is removed as a whole."""
    taken = place = 0
    for character in islice(line, columns):
        if character not in " \t" or taken >= columns:
            break
        taken += 1 if character == " " else _TAB_COLUMNS - taken % _TAB_COLUMNS
        place += 1
    return line[place:]


def dedent(text: str) -> str:
    """The text without the blanks that all its lines begin with. Lines of nothing but blanks become empty.

    Does the same as ``textwrap.dedent``, in short steps.
    """
    lines = text.split("\n")
    filled = [line for line in lines if not line.isspace() and line]
    margins = [line[: _indentation(line)] for line in (min(filled, default=""), max(filled, default=""))]
    margin = len(commonprefix(margins))  # noqa: RUF071 - these are not paths
    return "\n".join(line[margin:] if line.strip(" \t") else "" for line in lines)
