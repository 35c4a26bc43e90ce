"""The common words and the abbreviations of some languages."""

import tomllib
from collections.abc import Sequence, Set
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files

import regex

_WORD = regex.compile(r"[\p{L}\p{M}]{2,}+")
_CUE = 10_000
"""Characters at the beginning of a text from which its language is guessed."""
_ENOUGH = 3
"""Common words that are needed to guess the language of a text."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words of a language, or of several. ``languages.toml`` explains the fields. ``common`` is in lower case."""

    common: Set[str]
    titles: Set[str]
    numbered: Set[str]
    abbreviations: Set[str]
    closings: Set[str]
    ordinals: Set[str]
    letters: Set[str]
    measures: Set[str]
    speech: Set[str]
    labels: Set[str]
    months: Set[str]


@cache
def _load_vocabularies() -> Sequence[Vocabulary]:
    tables = tomllib.loads(files(__package__).joinpath("languages.toml").read_text("utf-8"))
    return [
        Vocabulary(**{field.name: frozenset(table.get(field.name, "").split()) for field in fields(Vocabulary)})
        for table in tables.values()
    ]


@cache
def abbreviations() -> frozenset[str]:
    """Every word after which a full stop may not end a sentence, in any language, in lower case.

    Words that are abbreviations only next to a number are left out if they have less than four letters: before a
    capital letter they end a sentence.
    """
    words = _merge(_load_vocabularies())
    near_numbers = {word for word in words.numbered | words.measures if len(word) > 3}
    every = words.titles | words.abbreviations | words.closings | near_numbers
    return frozenset(word.lower() for word in every if len(word) > 1)


@cache
def months() -> Set[str]:
    """The names of months in the languages that write "12." before them."""
    return _merge(_load_vocabularies()).months


@cache
def _merge_all() -> Vocabulary:
    """The words of all languages. Words of one letter are left out, because elsewhere they are initials: of the common
    words only the English ones are kept, of the titles none."""
    merged, english = _merge(_load_vocabularies()), _load_vocabularies()[0]
    common = {word for word in merged.common if len(word) > 1} | english.common
    return replace(merged, common=common, titles={title for title in merged.titles if len(title) > 1})


def find_vocabulary(text: str) -> Vocabulary:
    """The words of the language, or of the few languages, with the most common words at the beginning of the text. All
    languages count if there are too few such words.

    This is cheap and only good enough to choose abbreviations. The verifier ``language`` identifies languages.
    """
    words = _WORD.findall(text[:_CUE].lower())
    found = [sum(map(language.common.__contains__, words)) for language in _load_vocabularies()]
    if max(found) < _ENOUGH:
        return _merge_all()
    return _merge(
        [language for language, hits in zip(_load_vocabularies(), found, strict=True) if hits > 0.7 * max(found)]
    )


def _merge(languages: Sequence[Vocabulary]) -> Vocabulary:
    def union(name: str) -> Set[str]:
        return frozenset[str]().union(*(getattr(language, name) for language in languages))

    return Vocabulary(**{field.name: union(field.name) for field in fields(Vocabulary)})
