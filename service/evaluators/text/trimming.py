"""Takes from the end of a text what is more than it may have, in whole sentences, paragraphs or items."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

import regex

from service.evaluators.text.sentences import sentence_ends
from service.evaluators.text.verbatim import code_spans

LEAST_KEPT = 0.5
"""The share of its characters that a text keeps. One that would lose more is not trimmed: it would be another text."""

NEXT_SENTENCE = " A b"
"""What is put after a text to find its last finished sentence: its rest is then not taken for one."""

_BLANK_LINES = regex.compile(r"\n(?:[^\S\n]*+\n){2,}+")


def is_mostly_kept(trimmed: str, text: str) -> bool:
    """Whether a text that lost its end is still the same text."""
    return bool(trimmed.strip()) and len(trimmed.strip()) >= LEAST_KEPT * len(text.strip())


def trim_sentences(text: str, fits: Callable[[str], bool]) -> str | None:
    """The longest beginning of the text that fits and ends with a sentence; None if too little would be left.

    ``fits``: if it is true of a beginning, it is true of every shorter one.
    """
    places = _places(text)
    fitting = bisect_right(places, False, key=lambda place: not fits(text[:place]))
    trimmed = text[: places[fitting - 1]] if fitting else ""
    return trimmed if is_mostly_kept(trimmed, text) else None


def trim_unfinished(text: str) -> str | None:
    """The text up to its last finished sentence; None if too little would be left."""
    text = text.rstrip()
    places = [place for place in _places(text + NEXT_SENTENCE) if place <= len(text)]
    trimmed = text[: places[-1]] if places else ""
    return trimmed if is_mostly_kept(trimmed, text) else None


def _places(text: str) -> list[int]:
    """Where the sentences of the text end, except within code."""
    spans = code_spans(text)
    return [end for end in sentence_ends(text) if not any(start < end < stop for start, stop in spans)]


def trim_sections(text: str, are_headings: Sequence[bool], most: int) -> str | None:
    """The text up to the heading after the first ``most``; None if too little would be left."""
    lines = text.split("\n")
    headings = [at for at, is_heading in enumerate(are_headings) if is_heading]
    trimmed = "\n".join(lines[: headings[most]]).rstrip()
    return trimmed if is_mostly_kept(trimmed, text) else None


def trim_items(text: str, are_items: Sequence[bool], most: int) -> str | None:
    """The text without the items after the first ``most``; None if too little would be left.

    ``are_items``: for each line of the text, whether an item begins there. The lines below an item that are indented
    deeper belong to it.
    """
    kept, margin = [], None
    for line, is_item, count in zip(text.split("\n"), are_items, accumulate(are_items), strict=True):
        indent = len(line) - len(line.lstrip())
        if is_item:
            margin = indent if count > most else None
        elif margin is not None and (not line.strip() or indent <= margin):
            margin = None
        if margin is None:
            kept.append(line)
    trimmed = _BLANK_LINES.sub("\n\n", "\n".join(kept)).rstrip()
    return trimmed if is_mostly_kept(trimmed, text) else None
