"""Checks by the header alone whether an image may be sent to an engine. Nothing is decompressed here.

A few bytes can claim to be billions of pixels, which a decoder then allocates: a decompression bomb. So every size that
a file states before its pixels is limited. Animations are refused, because they can repeat a size without end.

Sources: PNG (W3C Recommendation, third edition, sections 5 and 11), JPEG (ITU-T T.81, annex B), GIF89a (sections 18 to
25), WebP (RFC 9649, section 2).
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from service.engines.conversation import Image

MOST_BYTES = 4_194_304
LONGEST_SIDE = 8_192
MOST_PIXELS = 16_777_216
MOST_SEGMENTS = 32_768
"""Parts of a file that are skipped. A GIF of MOST_BYTES has 16,448 blocks of full length; other formats have fewer."""

Sizes = Iterator[tuple[int, int]]
"""Each width and height that a file states, in pixels."""


def read_image(data: bytes) -> Image:
    """Return the image, after a check of its header. Raises ValueError, whose message does not repeat any of the bytes,
    if it is not an image, or is one that is not accepted.

    >>> read_image(b"GIF89a")
    Traceback (most recent call last):
    ValueError: the image/gif is cut short
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"an image may have at most {MOST_BYTES} bytes")
    for magic, (media_type, sizes_of) in _KINDS.items():
        if data.startswith(magic):
            try:
                sizes = list(sizes_of(data))
            except (struct.error, IndexError):
                raise ValueError(f"the image/{media_type} is cut short") from None
            _check_sizes(sizes)
            return Image(f"image/{media_type}", data)
    raise ValueError("expected an image in PNG, JPEG, WebP or GIF")


def _check_sizes(sizes: list[tuple[int, int]]) -> None:
    if not sizes:
        raise ValueError("the image does not say how large it is")
    for width, height in sizes:
        if not (0 < width <= LONGEST_SIDE and 0 < height <= LONGEST_SIDE and width * height <= MOST_PIXELS):
            raise ValueError(
                f"an image may have at most {LONGEST_SIDE} pixels a side and {MOST_PIXELS} in all, and at least one"
            )


def _refuse_animation(is_animated: bool) -> None:
    if is_animated:
        raise ValueError("animated images are not accepted")


class _Steps:
    """Counts the parts of a file. Without a limit, a file of many tiny ones would take a quarter of a second."""

    def __init__(self) -> None:
        self._left = MOST_SEGMENTS

    def take(self) -> None:
        """Count a part. Raises ValueError after MOST_SEGMENTS."""
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"an image may have at most {MOST_SEGMENTS} segments before it ends")


def _png_sizes(data: bytes) -> Sizes:
    """Read the chunks before the pixels. Some decoders would use a second header, so its size counts too."""
    at = 8
    steps = _Steps()
    while (kind := data[at + 4 : at + 8]) != b"IDAT":
        steps.take()
        (length,) = struct.unpack_from(">I", data, at)
        if kind == b"IHDR":
            yield struct.unpack_from(">II", data, at + 8)
        _refuse_animation(kind == b"acTL")
        at += 12 + length


def _jpeg_sizes(data: bytes) -> Sizes:
    """Read the marker segments before the first scan."""
    at = 2
    steps = _Steps()
    while True:
        steps.take()
        if data[at] != 0xFF:
            raise ValueError("the JPEG has something other than a marker between its segments")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # without a segment
            at += 2
        elif marker in (0xD9, 0xDA):  # end of image, start of scan
            return
        else:
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header
                height, width = struct.unpack_from(">HH", data, at + 5)
                yield width, height
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def _gif_sizes(data: bytes) -> Sizes:
    """Read the sizes of the screen and of the one frame, which decoders allow to be larger than the screen."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    yield width, height
    at = 13 + _count_table_bytes(flags)
    frames = 0
    steps = _Steps()
    while at < len(data) and data[at] != 0x3B:  # the trailer; some files lack it
        steps.take()
        if data[at] == 0x2C:
            frames += 1
            _refuse_animation(frames > 1)
            left, top, width, height, flags = struct.unpack_from("<HHHHB", data, at + 1)
            yield left + width, top + height
            at = _skip_blocks(data, at + 11 + _count_table_bytes(flags), steps)
        elif data[at] == 0x21:
            at = _skip_blocks(data, at + 2, steps)
        else:
            raise ValueError("the GIF has something other than a block between its blocks")


def _count_table_bytes(flags: int) -> int:
    """Bytes of the colour table that the flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_blocks(data: bytes, at: int, steps: "_Steps") -> int:
    """The offset after the series of sub-blocks that begins at ``at``."""
    while data[at]:
        steps.take()
        at += 1 + data[at]
    return at + 1


def _webp_sizes(data: bytes) -> Sizes:
    """Read the first chunk. If it is an extended header, decoders require the image to have the size of its canvas."""
    match data[8:16]:
        case b"WEBPVP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            yield width & 0x3FFF, height & 0x3FFF
        case b"WEBPVP8L":
            (packed,) = struct.unpack_from("<I", data, 21)
            yield (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
        case b"WEBPVP8X":
            _refuse_animation(bool(data[20] & 0x02))
            yield _read_uint24(data, 24) + 1, _read_uint24(data, 27) + 1


def _read_uint24(data: bytes, at: int) -> int:
    low, high = struct.unpack_from("<HB", data, at)
    return int(low | high << 16)


_KINDS: Mapping[bytes, tuple[str, Callable[[bytes], Sizes]]] = MappingProxyType(
    {
        b"\x89PNG\r\n\x1a\n": ("png", _png_sizes),
        b"\xff\xd8\xff": ("jpeg", _jpeg_sizes),
        b"GIF87a": ("gif", _gif_sizes),
        b"GIF89a": ("gif", _gif_sizes),
        b"RIFF": ("webp", _webp_sizes),
    }
)
"""The formats, by the first bytes of a file."""
