import time

import pytest

from service.evaluators.text.loops import start_of_loop


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("Well. " + "It is so. " * 20, len("Well. It is so")),
        ("海很大。" * 40, len("海很大。")),
        ("a " + "no " * 60, len("a no")),
        ("It is so. " * 3, None),
        ("It is so. " * 30 + "Now something else.", None),
        ("| --- | --- | " * 40, None),
        ("*" * 500, None),
        ("", None),
    ],
)
def test_a_loop_at_the_end_is_found(text: str, start: int | None) -> None:
    assert start_of_loop(text) == start


def test_verses_with_a_refrain_are_no_loop() -> None:
    verse = "Row, row, row your boat, gently down the stream.\n"
    assert start_of_loop("".join(f"{verse}Verse {number}.\n" for number in range(20))) is None


def test_a_long_text_takes_no_time() -> None:
    begun = time.thread_time()
    start_of_loop("ab" * 50_000 + "c")
    assert time.thread_time() - begun < 20
