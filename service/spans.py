"""Spans: the pieces of work that a trace shows, each a part of another. Who records them is not known here.

The current span belongs to the context that runs (PEP 567). A task begins in the span that made it, so calls side by
side are siblings, and what they call is their own. Where nothing is traced it is UNTRACED, which costs nothing.

No span contains the text of a request or a response, or an error's message, which may quote one.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import MappingProxyType
from typing import Protocol

Attributes = Mapping[str, str | bool | int | float | Sequence[str] | None]
"""What is known of a piece of work; a None is left out."""


class Span(Protocol):
    """A piece of work that has begun."""

    @property
    def ids(self) -> Mapping[str, str]:
        """``trace_id`` and ``span_id`` in hexadecimal digits; nothing where there is no trace."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What tells another service of which trace its work is a part: W3C's trace context."""

    def begin(self, name: str, attributes: Attributes, model: str | None) -> "Span":
        """Begin a part of this work. ``model``: the one that is called, if it is such a call."""

    def rename(self, name: str) -> None: ...

    def set(self, attributes: Attributes) -> None: ...

    def add_event(self, name: str, attributes: Attributes) -> None: ...

    def fail(self, kind: str) -> None:
        """Mark the work as failed, by an error of a kind that has few values."""

    def end(self) -> None: ...


class Untraced:
    """A Span of which nobody hears."""

    ids: Mapping[str, str] = MappingProxyType({})
    headers: Mapping[str, str] = MappingProxyType({})

    def begin(self, name: str, attributes: Attributes, model: str | None) -> Span:
        return self

    def rename(self, name: str) -> None:
        pass

    def set(self, attributes: Attributes) -> None:
        pass

    def add_event(self, name: str, attributes: Attributes) -> None:
        pass

    def fail(self, kind: str) -> None:
        pass

    def end(self) -> None:
        pass


class Tracer(Protocol):
    """Records the spans of requests."""

    def request(self, method: str, headers: Mapping[str, str], attributes: Attributes) -> Span:
        """Begin a request's span, as a part of the trace that its headers name, if they do."""

    async def close(self) -> None:
        """Send what is recorded, as far as that is possible within a few seconds."""


UNTRACED = Untraced()

_current: ContextVar[Span] = ContextVar("span", default=UNTRACED)


def current() -> Span:
    """The span of the code that runs."""
    return _current.get()


@contextmanager
def within(span: Span, expected: tuple[type[Exception], ...] = ()) -> Iterator[Span]:
    """Make a span the current one, and end it. It fails by an exception that is not ``expected``; work that is given
    up, as when a client leaves, has not failed.

    A generator that yields inside has to be closed by the task that reads it: no other has its context.
    """
    token = _current.set(span)
    try:
        yield span
    except expected:
        raise
    except Exception as error:
        span.fail(type(error).__name__)
        raise
    except BaseException:
        span.set({"redraft.cancelled": True})
        raise
    finally:
        _current.reset(token)
        span.end()


_UNTRACED_WORK = nullcontext[Span](UNTRACED)


def span(
    name: str, attributes: Attributes, *, model: str | None = None, expected: tuple[type[Exception], ...] = ()
) -> AbstractContextManager[Span]:
    """Do a part of the current span's work, as ``within``."""
    parent = current()
    return _UNTRACED_WORK if parent is UNTRACED else within(parent.begin(name, attributes, model), expected)
