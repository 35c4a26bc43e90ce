"""Uploads: ``multipart/form-data`` (RFC 7578) read strictly, with the file written on while it arrives."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from service.errors import BodyTimeout, BodyTooLarge, FieldError, InvalidRequest, MalformedBody, wrong_field
from service.files.store import CHUNK_BYTES, FileWriter

FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]")
LONGEST_FIELD = 128
LONGEST_NAME = 255
FORM = "multipart/form-data"


@dataclass(frozen=True)
class Form:
    """What an upload has apart from the file's content. ``name``: of the file."""

    name: str
    fields: dict[str, str]


@dataclass
class _Part:
    """A part of the form. ``file``: the file's name if it is one."""

    headers: dict[str, bytes] = field(default_factory=dict)
    name: str = ""
    file: str | None = None
    value: bytearray = field(default_factory=bytearray)


async def read_upload(request: Request, writer: FileWriter, max_bytes: int, seconds: float) -> Form:
    """Write the file of a form, and give the rest of the form.

    max_bytes: of the file. The form may have little more.
    seconds: in which each 256 KiB of it must arrive.

    Raises InvalidRequest, MalformedBody, BodyTooLarge and BodyTimeout.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind.decode("latin-1").lower() != FORM or not options.get(b"boundary"):
        wrong = FieldError("content-type", f"must be {FORM} with a boundary")
        raise InvalidRequest(f"a file is uploaded as {FORM}", [wrong])
    reader = _Reader(options[b"boundary"], max_bytes)
    async for piece in _pieces(request, seconds):
        await writer.write(reader.feed(piece))
    return reader.finish()


async def _pieces(request: Request, seconds: float) -> AsyncIterator[bytes]:
    """The pieces of a body that must not dawdle."""
    pieces = aiter(request.stream())
    received, due = 0, CHUNK_BYTES
    until = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            async with asyncio.timeout_at(until):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise BodyTimeout(f"no {CHUNK_BYTES} bytes arrived within {seconds:g} seconds") from None
        if piece is None:
            return
        received += len(piece)
        if received >= due:
            due = received + CHUNK_BYTES
            until = asyncio.get_running_loop().time() + seconds
        yield piece


class _Reader:
    """Takes a form apart: gives the content of its file, and keeps the rest."""

    def __init__(self, boundary: bytes, max_bytes: int) -> None:
        self._form: dict[str, str] = {}
        self._file: str | None = None
        self._size = 0
        self._max_bytes = max_bytes
        self._content = bytearray()
        self._part = _Part()
        self._header, self._header_value = bytearray(), bytearray()
        self._is_over = False
        callbacks = {
            "on_part_begin": self._begin_part,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._take,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        except FormParserError as error:
            raise MalformedBody(f"the body is not a form: {error}") from None

    def feed(self, piece: bytes) -> bytes:
        """What a piece of the body has of the file's content."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise MalformedBody(f"the body is not a form: {error}") from None
        content = bytes(self._content)
        self._content.clear()
        return content

    def finish(self) -> Form:
        """What else there was. Raises what is wrong with the form as a whole."""
        if not self._is_over:
            raise MalformedBody("the body is not a form: it ends too early")
        if self._file is None:
            raise wrong_field("file", "Field required")
        if not self._size:
            raise wrong_field("file", "the file is empty")
        return Form(self._file, self._form)

    def _begin_part(self) -> None:
        self._part = _Part()

    def _end_header(self) -> None:
        self._part.headers[self._header.decode("latin-1").lower()] = bytes(self._header_value)
        self._header.clear()
        self._header_value.clear()

    def _end_headers(self) -> None:
        part = self._part
        kind, options = parse_options_header(part.headers.get("content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise MalformedBody("the body is not a form: each part needs Content-Disposition: form-data and a name")
        part.name = _text(options[b"name"], "name")
        if part.headers.get("content-transfer-encoding", b"binary").lower() not in (b"binary", b"8bit", b"7bit"):
            raise wrong_field(part.name, "must not be encoded for the transfer")
        if part.name == "file":
            if self._file is not None:
                raise wrong_field("file", "must be sent once")
            if b"filename" not in options:
                raise wrong_field("file", "must be a file with a name")
            part.file = self._file = _file_name(options[b"filename"])
        elif part.name not in FIELDS:
            raise wrong_field(part.name, "Extra inputs are not permitted")
        elif part.name in self._form:
            raise wrong_field(part.name, "must be sent once")

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._part.file is None:
            self._part.value += data[start:end]
            if len(self._part.value) > LONGEST_FIELD:
                raise wrong_field(self._part.name, f"should have at most {LONGEST_FIELD} characters")
            return
        self._size += end - start
        if self._size > self._max_bytes:
            raise BodyTooLarge(f"a file may have at most {self._max_bytes} bytes")
        self._content += data[start:end]

    def _end_part(self) -> None:
        if self._part.file is None:
            self._form[self._part.name] = _text(self._part.value, self._part.name)

    def _end(self) -> None:
        self._is_over = True


def _text(data: bytes | bytearray, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise wrong_field(name, "must be UTF-8") from None


def _file_name(data: bytes) -> str:
    """The last part of a path, as browsers may send one."""
    name = _text(data, "file").replace("\\", "/").rpartition("/")[2]
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise wrong_field("file", f"its name should have 1 to {LONGEST_NAME} printable characters")
    return name
