"""Texts from standard input and files, and to standard output, whatever their encodings."""

import codecs
import io
import json
import locale
import os
import sys
from pathlib import Path
from typing import Any

_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class Unreadable(ValueError):
    """A text that cannot be read; the message is a sentence for the user."""


def read_input() -> str:
    """Standard input to its end. Raises Unreadable."""
    if sys.stdin is None:
        raise Unreadable("standard input is closed")
    stream = getattr(sys.stdin, "buffer", None)
    return decode(stream.read(), "standard input") if stream else sys.stdin.read()


def read_file(path: str) -> str:
    """The text of a file. Raises Unreadable."""
    try:
        return decode(Path(path).read_bytes(), path)
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path} cannot be read: {error}") from error


def decode_argument(value: str) -> str:
    """An argument as it was typed: Python has kept the bytes that it could not decode. Raises Unreadable."""
    return decode(os.fsencode(value), "an argument") if any("\ud800" <= c <= "\udfff" for c in value) else value


def decode(data: bytes, name: str) -> str:
    """The text that ``data`` holds: in UTF-8, as its byte order mark says, or in the locale's encoding."""
    marked = [encoding for mark, encoding in _BYTE_ORDER_MARKS.items() if data.startswith(mark)]
    own = locale.getpreferredencoding(False)
    for encoding in marked or ["utf-8", own]:
        try:
            return data.decode(encoding).replace("\r\n", "\n")
        except UnicodeDecodeError:
            continue
    tried = (marked or ["UTF-8"])[0]
    raise Unreadable(f"{name} is not {tried}: convert it, for example by iconv -f GBK -t UTF-8")


class Output:
    """Standard output. Characters that it has no code for are replaced.

    Once nobody reads it, the rest goes to standard error, so that no text is lost, and ``closed`` is true.
    """

    def __init__(self) -> None:
        self.closed = False
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")

    def write(self, text: str) -> None:
        if not self.closed:
            try:
                sys.stdout.write(text)
                sys.stdout.flush()
            except BrokenPipeError:
                self.close()
                sys.stderr.write("Standard output is closed; the rest follows here.\n")
            else:
                return
        sys.stderr.write(text)
        sys.stderr.flush()

    def write_json(self, document: Any) -> None:
        """A line of JSON, in ASCII where the encoding is not Unicode's."""
        unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        self.write(json.dumps(document, ensure_ascii=not unicode, separators=(",", ":")) + "\n")

    def close(self) -> None:
        """Let what is buffered go nowhere: it would fail again when the process ends."""
        self.closed = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str) -> None:
    """Print for the person at the terminal; the log is for machines."""
    print(text, file=sys.stdout, flush=True)  # noqa: T201 - it is what the function is for
