"""Which prompts may be learned from, and which ones the exam keeps to itself.

Prompts that are nearly the same are in the same *part*. Two are nearly the same if the Jaccard index of their runs of
three words is at least NEAR, as estimated by MinHash (Broder 1997, "On the resemblance and containment of documents"),
after numbers and quoted words were blanked. Prompts of one family are in the same part too.

The part of a prompt that resembles no earlier one follows from the prompt, or its family, and the salt. It never
changes: a ``Split`` remembers every prompt, and later ones join those that they resemble. A prompt that resembles some
of both parts, or resembles one part while its family is in the other, is in neither. So nothing in training is nearly
the same as a prompt of the exam.

Prompts that nobody makes for an exam, those of stored traces and of files, are all for training unless they resemble
one of the exam. All their messages and each paragraph of them are looked at, since a prompt of the exam may be quoted
in a longer one.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict

from service.learning.prompts import Prompt

Part = Literal["train", "exam", "neither"]

NEAR = 0.7
"""The Jaccard index from which on two prompts are nearly the same."""
HASHES = 64
EXAM_SHARE = 0.25
SALT = "redraft-1"
"""Another salt gives another split."""

_SHINGLE = 3
_NUMBERS_AND_QUOTES = re.compile(r"\d+|\"[^\"\n]{1,100}\"|“[^”\n]{1,100}”")
_PRIME = 4_294_967_291  # the largest below 2**32

Signature = tuple[int, ...]


class Known(BaseModel):
    """A prompt that was assigned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    signature: Signature
    family: str
    part: Literal["train", "exam"]


class Split(BaseModel):
    """All prompts so far. ``assign`` gives the parts of prompts, and the split that knows them too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    salt: str = SALT
    known: tuple[Known, ...] = ()

    def assign(self, prompts: Iterable[Prompt], *, examinable: bool = True) -> "tuple[Mapping[str, Part], Split]":
        """The parts of prompts by their ids, and the split with those that were new.

        Prompts that come together are taken in an order of their own, so that theirs does not matter.
        examinable: whether a part of those that resemble no earlier one is for the exam.
        """
        growing = _Growing(self)
        ordered = sorted(prompts, key=lambda prompt: (normalize(prompt.text), prompt.family))
        parts = {prompt.id: growing.part_of(prompt, examinable) for prompt in ordered}
        return parts, Split(salt=self.salt, known=tuple(growing.known))


class _Growing:
    """A split to which prompts are added. ``_places`` finds those that share a band of the signature."""

    def __init__(self, split: Split) -> None:
        self.known: list[Known] = []
        self._salt = split.salt
        self._places: dict[tuple[int, Signature], list[Known]] = {}
        self._families: dict[str, Literal["train", "exam"]] = {}
        for known in split.known:
            self._add(known)

    def part_of(self, prompt: Prompt, examinable: bool) -> Part:
        near = [known for passage in prompt.passages for known in self._near(sign(passage))]
        parts = {known.part for known in near}
        if prompt.family in self._families:
            parts.add(self._families[prompt.family])
        if len(parts) > 1:
            return "neither"
        part = parts.pop() if parts else self._draw(prompt) if examinable else "train"
        known = {(each.signature, each.family) for each in near}
        for signature in dict.fromkeys(map(sign, _remembered(prompt, part, examinable))):
            if (signature, prompt.family) not in known:
                self._add(Known(signature=signature, family=prompt.family, part=part))
        return part

    def _near(self, signature: Signature) -> Sequence[Known]:
        return [known for known in self._sharing(signature) if resemblance(known.signature, signature) >= NEAR]

    def _draw(self, prompt: Prompt) -> Literal["train", "exam"]:
        drawn = _hash(f"{self._salt}\n{prompt.family or normalize(prompt.text)}")
        return "exam" if drawn / 2**64 < EXAM_SHARE else "train"

    def _sharing(self, signature: Signature) -> Sequence[Known]:
        found = {id(known): known for band in _bands(signature) for known in self._places.get(band, ())}
        return list(found.values())

    def _add(self, known: Known) -> None:
        self.known.append(known)
        if known.family:
            self._families.setdefault(known.family, known.part)
        for band in _bands(known.signature):
            self._places.setdefault(band, []).append(known)


def _remembered(prompt: Prompt, part: Part, examinable: bool) -> Sequence[str]:
    """The texts that later prompts are compared with. Nobody examines with a conversation that quotes the exam, so its
    other messages, which many conversations may share, do not become the exam's."""
    if examinable:
        return [prompt.text]
    return prompt.messages_given if part == "train" else ()


def normalize(text: str) -> str:
    """The text without case, punctuation, numbers and quoted words, in which prompts of one form differ.

    >>> normalize('Use "salt" in 3 sentences!')
    'use _ in _ sentences'
    """
    return " ".join(re.findall(r"\w+", _NUMBERS_AND_QUOTES.sub(" _ ", text.lower())))


@lru_cache(maxsize=16_384)
def sign(text: str) -> Signature:
    """The MinHash signature of a text."""
    words = normalize(text).split() or [""]
    shingles = {" ".join(words[start : start + _SHINGLE]) for start in range(max(1, len(words) - _SHINGLE + 1))}
    hashes = [_hash(shingle) % _PRIME for shingle in shingles]
    return tuple(min((factor * value + term) % _PRIME for value in hashes) for factor, term in _permutations())


def resemblance(one: Signature, other: Signature) -> float:
    """An estimate of the Jaccard index of two texts."""
    return sum(left == right for left, right in zip(one, other, strict=True)) / HASHES


def _bands(signature: Signature) -> Iterable[tuple[int, Signature]]:
    """Pieces of a signature. Two texts with a resemblance of NEAR share one with a probability above 0.9999."""
    return ((start, signature[start : start + 2]) for start in range(0, HASHES, 2))


@cache
def _permutations() -> Sequence[tuple[int, int]]:
    return [(1 + _hash(f"factor {n}") % (_PRIME - 1), _hash(f"term {n}") % _PRIME) for n in range(HASHES)]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
