"""Regular expressions that strangers write, run by RE2 within bounds.

RE2 takes time linear in the text, but not in the text alone: where its automaton outgrows its memory, it walks the
whole program of the pattern at each byte. So the program of one pattern is bounded, a search is refused before it runs
where text and program together are too large, and what one request compiles is bounded as a whole.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import re2

from service.evaluators.text.words import excerpt

MAX_PROGRAM = 10_000
"""Instructions of one pattern. RE2 compiles so many in a few milliseconds."""
MAX_WORK = 500_000
"""What one request may give to compiling: instructions of its patterns, each of which counts for at least
LEAST_PROGRAM, and what its schemas take, in microseconds. At most about half a second."""
LEAST_PROGRAM = 250
MAX_SEARCH = 200_000_000
"""Bytes of the text times instructions of the pattern, in one search: at most about a second and a half."""

_MEMORY = (1 << 16, 1 << 19)
"""Bytes that RE2 may use for one pattern and its automaton. Most patterns fit in the first amount; the second holds
MAX_PROGRAM instructions."""


class SearchTooLarge(Exception):
    """The text is too long to be searched for this pattern."""


class TooMuchToCompile(Exception):
    """An allowance is used up. It is no ValueError, so that validation does not take it for the fault of one field."""


@dataclass
class Allowance:
    """How much work a request may still give to compiling."""

    left: int

    def spend(self, work: int) -> None:
        """Raises TooMuchToCompile once nothing is left."""
        self.left -= work
        if self.left < 0:
            raise TooMuchToCompile


_ALLOWANCE: ContextVar[Allowance | None] = ContextVar("allowance", default=None)
"""Patterns are compiled while a body is validated, which has no place for state of ours."""


@contextmanager
def limit_compiling(work: int = MAX_WORK) -> Iterator[Allowance]:
    """Let what is compiled inside take so much work altogether. The innermost allowance counts."""
    allowance = Allowance(work)
    token = _ALLOWANCE.set(allowance)
    try:
        yield allowance
    finally:
        _ALLOWANCE.reset(token)


def spend(work: int) -> None:
    """Take work from the request's allowance, if there is one. Raises TooMuchToCompile."""
    if (allowance := _ALLOWANCE.get()) is not None:
        allowance.spend(work)


@dataclass(frozen=True, slots=True)
class LinearPattern:
    """A compiled pattern. ``size``: the instructions of its program, which is what each byte of a text may cost."""

    pattern: str
    size: int
    compiled: Any

    def cost(self, text: str) -> int:
        """The most that a search of ``text`` can take, in steps of about seven nanoseconds."""
        return self.size * (1 + len(text.encode("utf-8", "surrogatepass")))

    def search(self, text: str) -> Any:
        """RE2's match of the first place where the pattern matches, or None. Raises SearchTooLarge before it begins."""
        if self.cost(text) > MAX_SEARCH + self.size:
            raise SearchTooLarge
        return self.compiled.search(text)


def compile_linear(pattern: str, *, name: str | None = None) -> LinearPattern:
    """The pattern, in RE2's syntax, compiled. ValueError, with the reason, where it does not compile or is too large;
    it calls the pattern ``name`` where that is given.

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
