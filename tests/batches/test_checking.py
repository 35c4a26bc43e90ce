"""Checking the lines of an input file."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.batches import checking
from service.batches.batch import Line
from service.batches.checking import MOST_FAULTS, Checker, cut_lines

URL = "/v1/generate"


def raw(**members: Any) -> bytes:
    return json.dumps({"custom_id": "a", "method": "POST", "url": URL, "body": {"prompt": "1"}, **members}).encode()


async def cut(*chunks: bytes, max_bytes: int = 100) -> list[bytes]:
    async def given() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return [line async for line in cut_lines(given(), max_bytes)]


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ((b"a\nb\n",), [b"a", b"b", b""]),
        ((b"a\nb",), [b"a", b"b"]),
        ((b"a", b"b\n", b"\n", b"c\r\nd"), [b"ab", b"", b"c\r", b"d"]),
        ((), [b""]),
    ],
)
async def test_lines_are_cut_wherever_chunks_end(chunks: tuple[bytes, ...], lines: list[bytes]) -> None:
    assert await cut(*chunks) == lines


async def test_of_a_line_that_is_too_long_only_the_beginning_is_held() -> None:
    assert await cut(b"a\n", b"b" * 200, b"c" * 200, max_bytes=100) == [b"a", b"b" * 200]


def check(*lines: bytes, max_bytes: int = 10_000) -> tuple[list[Line], Checker]:
    checker = Checker(URL, max_bytes)
    found = [line for line in map(checker.check, lines) if line is not None]
    checker.finish()
    return found, checker


def test_lines_have_their_numbers_and_their_bodies() -> None:
    lines, checker = check(b"\xef\xbb\xbf" + raw(), b" \r", raw(custom_id="b", body={"prompt": "é\x00"}))

    assert checker.faults == []
    assert [(line.number, line.custom_id, json.loads(line.body)) for line in lines] == [
        (1, "a", {"prompt": "1"}),
        (3, "b", {"prompt": "é\x00"}),
    ]
    assert "\x00" not in lines[1].body  # Postgres takes no such text


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (b"\xff", "invalid_json_line", None),
        (b"[" * 5_000, "invalid_json_line", None),
        (raw(custom_id=1), "invalid_custom_id", "custom_id"),
        (raw(custom_id=""), "invalid_custom_id", "custom_id"),
        (raw(custom_id="a" * 129), "invalid_custom_id", "custom_id"),
        (raw(custom_id="a\nb"), "invalid_custom_id", "custom_id"),
        (raw(method="GET"), "invalid_method", "method"),
        (raw(url="/v1/refine"), "invalid_url", "url"),
        (raw(body=[]), "invalid_body", "body"),
        (raw(more=1), "unknown_parameter", "more"),
        (json.dumps({"custom_id": "a", "method": "POST", "url": URL}).encode(), "missing_required_parameter", "body"),
        (raw(body={"prompt": "a" * 20_000}), "line_too_long", None),
    ],
)
def test_a_line_that_is_wrong_is_named(line: bytes, code: str, param: str | None) -> None:
    lines, checker = check(raw(custom_id="first"), line)

    assert [line.custom_id for line in lines] == ["first"]
    assert [(fault.line, fault.code, fault.param) for fault in checker.faults] == [(2, code, param)]


def test_ids_are_used_once() -> None:
    _, checker = check(raw(), raw(custom_id="b"), raw())

    assert [(fault.line, fault.code, fault.message) for fault in checker.faults] == [
        (3, "duplicate_custom_id", "line 1 has the same")
    ]


def test_a_file_without_lines_is_wrong_as_a_whole() -> None:
    _, checker = check(b"", b"  ")

    assert [(fault.line, fault.code) for fault in checker.faults] == [(None, "empty_file")]


def test_there_are_only_so_many_lines_and_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "MOST_LINES", 2)
    _, checker = check(*(raw(custom_id=str(number)) for number in range(3)))
    _, other = check(*[b"{"] * MOST_FAULTS)

    assert [(fault.line, fault.code) for fault in checker.faults] == [(3, "too_many_lines")]
    assert other.is_over


@pytest.mark.parametrize(
    ("models", "model"),
    [
        (["a", "a"], "a"),
        (["a", "b"], None),
        (["a", "b", "a"], None),
        ([None, "a"], None),
        ([], None),
        ([{"a": 1}], None),
        (["a\0"], None),
        (["a" * 300], None),
    ],
)
def test_a_batch_has_the_model_that_all_of_its_lines_name(models: list[Any], model: str | None) -> None:
    lines = [raw(custom_id=str(number), body={"model": named}) for number, named in enumerate(models)]
    _, checker = check(*lines)

    assert checker.model == model
