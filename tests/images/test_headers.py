"""What bytes are taken for a picture, held against what Pillow makes of them, which decodes for vLLM's servers."""

import io
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engines.remote.probes import GREY_PNG
from service.images.headers import LONGEST_SIDE, MOST_BYTES, read_image
from tests.images.test_fetch import GIF, JPEG, PNG, WEBP

KINDS = {"image/png": PNG, "image/jpeg": JPEG, "image/gif": GIF, "image/webp": WEBP}
BOMB = (60_000, 60_000)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    return PNG[:8] + b"".join(chunks) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def header(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def with_jpeg_size(width: int, height: int) -> bytes:
    at = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:at] + struct.pack(">HH", height, width) + JPEG[at + 4 :]


def with_gif_frame(width: int, height: int) -> bytes:
    at = GIF.index(b"\x2c", 13 + 3 * 2 ** ((GIF[10] & 7) + 1)) + 5
    return GIF[:at] + struct.pack("<HH", width, height) + GIF[at + 4 :]


def extended_webp(width: int, height: int, flags: int = 0) -> bytes:
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\x1e\0\0\0WEBPVP8X" + struct.pack("<I", 10) + bytes([flags, 0, 0, 0]) + sizes


@pytest.mark.parametrize(("media_type", "data"), KINDS.items())
def test_each_kind_is_told_by_its_bytes(media_type: str, data: bytes) -> None:
    image = read_image(data)

    assert (image.media_type, image.data) == (media_type, data)
    assert repr(data) not in repr(image)


@pytest.mark.parametrize(
    "data",
    [
        png(header(*BOMB)),
        png(header(8, 6), header(*BOMB)),
        png(header(0, 6)),
        png(header(LONGEST_SIDE + 1, 1)),
        png(header(LONGEST_SIDE, LONGEST_SIDE)),
        with_jpeg_size(*BOMB),
        with_jpeg_size(8, 0),
        GIF[:6] + struct.pack("<HH", *BOMB) + GIF[10:],
        with_gif_frame(*BOMB),
        WEBP[:26] + struct.pack("<HH", 16_383, 16_383) + WEBP[30:],
        extended_webp(*BOMB),
    ],
)
def test_a_picture_that_claims_to_be_too_large_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="pixels a side"):
        read_image(data)


@pytest.mark.parametrize(
    "data",
    [
        png(header(8, 6), chunk(b"acTL", b"\0\0\0\2\0\0\0\0")),
        extended_webp(8, 6, flags=0x02),
        GIF[:-1] + GIF[GIF.index(b"\x2c", 13 + 3 * 2 ** ((GIF[10] & 7) + 1)) :],
    ],
)
def test_an_animation_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="animated"):
        read_image(data)


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        read_image(PNG + b"\0" * MOST_BYTES)


@pytest.mark.parametrize(
    "data",
    [
        JPEG[:2] + b"\xff" * 100_000,
        GIF[:6] + b"\1\0\1\0\0\0\0" + b"\x21\xf9" + b"\1a" * 100_000,
        PNG[:8] + chunk(b"tEXt", b"") * 100_000,
    ],
)
def test_a_file_of_very_many_parts_is_refused(data: bytes) -> None:
    """To step through four million would hold up everybody."""
    with pytest.raises(ValueError, match="at most 32768 segments"):
        read_image(data)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"RIFF____WAVEfmt ", b"GIF89a", PNG[:8], JPEG[:30], b"BM" + PNG])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"image|say"):
        read_image(data)


@given(st.sampled_from(list(KINDS.values())), st.data())
def test_whatever_the_bytes_are_they_are_read_or_refused(data: bytes, draw: Any) -> None:
    """And what is read is what Pillow finds too, where it finds anything."""
    pillow = pytest.importorskip("PIL.Image")
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(0, 3))):
        changed[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    cut = bytes(changed[: draw.draw(st.integers(0, len(data)))])
    try:
        read_image(cut)
    except ValueError:
        return
    try:
        width, height = pillow.open(io.BytesIO(cut)).size
    except OSError:
        return
    assert width <= LONGEST_SIDE
    assert height <= LONGEST_SIDE


def test_the_picture_that_servers_are_shown_is_one() -> None:
    pillow = pytest.importorskip("PIL.Image")
    with pillow.open(io.BytesIO(GREY_PNG)) as picture:
        picture.load()
        assert (picture.size, picture.getpixel((3, 3))) == ((64, 64), 128)
    assert read_image(GREY_PNG).media_type == "image/png"
