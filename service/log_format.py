"""Formats log records as JSON, one object per line, without text from callers, models or servers.

The message of an exception may repeat its input. So tracebacks are written without messages: only the places, the code
and the types of the exceptions. To log a message that is meant for the operator, put it into a field.
"""

import logging
import traceback
from types import TracebackType

from pythonjsonlogger.json import JsonFormatter

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

CAUSED = "The above exception was the direct cause of the following exception:"
DURING = "During handling of the above exception, another exception occurred:"


class LineFormatter(JsonFormatter):
    """Formats a record as a JSON object on one line."""

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        )

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802 - logging's name
        return format_without_messages(ei[1]) if ei[1] is not None else ""


def format_without_messages(error: BaseException) -> str:
    """The traceback of an exception and of those that led to it, with their types and without their messages.

    >>> format_without_messages(ValueError("a caller's words"))
    'ValueError'
    """
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = traceback.format_list(traceback.extract_tb(current.__traceback__))
        begun = "Traceback (most recent call last):\n" + "".join(frames) if frames else ""
        parts.append(begun + type(current).__qualname__)
        if current.__cause__ is not None:
            parts.append(CAUSED)
            current = current.__cause__
        elif current.__context__ is not None and not current.__suppress_context__:
            parts.append(DURING)
            current = current.__context__
        else:
            current = None
    return "\n\n".join(reversed(parts))


def keep_first_line(record: logging.LogRecord) -> bool:
    """Cut asyncio's messages after the first line: the others show a task, and with it the message of its exception."""
    if record.name == "asyncio":
        record.msg, record.args = record.getMessage().partition("\n")[0], None
    return True
