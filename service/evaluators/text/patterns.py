"""Regular expressions from callers, run by RE2 within bounds.

RE2 takes time linear in the text, but the factor can be large: if its automaton outgrows its memory, it walks the whole
program of the pattern at each byte. So the program of a pattern is bounded, a search is refused beforehand if text and
program together are too large, and the work of compiling is bounded for each request.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import re2

from service.evaluators.text.words import excerpt

MAX_PROGRAM = 10_000
"""Instructions of one pattern. RE2 compiles that many in a few milliseconds."""
MAX_WORK = 500_000
"""What one request may spend on compiling: the instructions of its patterns, at least LEAST_PROGRAM for each, and the
microseconds that its schemas take. At most about half a second."""
LEAST_PROGRAM = 250
MAX_SEARCH = 200_000_000
"""Bytes of the text times instructions of the pattern, for one search: at most about a second and a half."""

_MEMORY = (1 << 16, 1 << 19)
"""Bytes that RE2 may use for one pattern and its automaton. Most patterns fit into the first amount. The second holds
MAX_PROGRAM instructions."""


class SearchTooLarge(Exception):
    """The text is too long for a search with this pattern."""


class TooMuchToCompile(Exception):
    """An allowance is used up. It is not a ValueError, or validation would blame it on one field."""


@dataclass
class Allowance:
    """How much work a request may still spend on compiling."""

    left: int

    def spend(self, work: int) -> None:
        """Raises TooMuchToCompile once nothing is left."""
        self.left -= work
        if self.left < 0:
            raise TooMuchToCompile


_ALLOWANCE: ContextVar[Allowance | None] = ContextVar("allowance", default=None)
"""A context variable, because patterns are compiled while pydantic validates a body, to which we cannot pass state."""


@contextmanager
def limit_compiling(work: int = MAX_WORK) -> Iterator[Allowance]:
    """Limit the work of everything that is compiled in the block. The innermost limit counts.

    >>> with limit_compiling():
    ...     compile_linear("^a+$")
    """
    allowance = Allowance(work)
    token = _ALLOWANCE.set(allowance)
    try:
        yield allowance
    finally:
        _ALLOWANCE.reset(token)


def spend(work: int) -> None:
    """Take work from the current allowance, if there is one. Raises TooMuchToCompile."""
    if (allowance := _ALLOWANCE.get()) is not None:
        allowance.spend(work)


@dataclass(frozen=True, slots=True)
class LinearPattern:
    """A compiled pattern. ``size``: the instructions of its program, which is the most that a byte of a text costs."""

    pattern: str
    size: int
    compiled: Any

    def cost(self, text: str) -> int:
        """The most steps that a search of ``text`` can take. A step takes about seven nanoseconds."""
        return self.size * (1 + len(text.encode("utf-8", "surrogatepass")))

    def search(self, text: str) -> Any:
        """RE2's first match, or None. Raises SearchTooLarge before the search begins."""
        if self.cost(text) > MAX_SEARCH + self.size:
            raise SearchTooLarge
        return self.compiled.search(text)


def compile_linear(pattern: str, *, name: str | None = None) -> LinearPattern:
    """Compile a pattern in RE2's syntax. Raises ValueError, with the reason, if it does not compile or is too large.

    ``name``: what the error calls the pattern, if that is not the pattern itself.

    >>> compile_linear("^a+$").search("aaa") is not None
    True
    """
    for memory in _MEMORY:
        options = re2.Options()
        options.max_mem = memory
        options.log_errors = False
        options.never_capture = True
        try:
            compiled = re2.compile(pattern, options)
        except re2.error as error:
            reason = error.args[0].decode(errors="replace")
        else:
            size = max(compiled.programsize, compiled.reverseprogramsize)
            if size <= MAX_PROGRAM:
                spend(max(size, LEAST_PROGRAM))
                return LinearPattern(pattern, size, compiled)
            reason = "pattern too large"
        if not reason.startswith("pattern too large"):
            break
    spend(MAX_PROGRAM)
    if reason.startswith("pattern too large"):
        reason = f"too large; at most {MAX_PROGRAM} instructions of RE2 are allowed"
    raise ValueError(f"{excerpt(name or pattern)}: {reason}")
