"""Constraints that no text can meet together, where that is certain whatever the text."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from service.constraints.algebra import (
    Case,
    Constraint,
    Contradiction,
    Counter,
    Excluded,
    Forbidden,
    Included,
    Occurrences,
    Prefix,
    Suffix,
)
from service.constraints.lexemes import is_plain_word


def refuse_contradictions(constraints: Sequence[Constraint]) -> None:
    """Raises Contradiction for the first two constraints that exclude each other."""
    for first, second in combinations(constraints, 2):
        reason = _contradict(first, second) or _contradict(second, first)
        if reason:
            raise Contradiction(first, second, reason)


def _contradict(one: Constraint, other: Constraint) -> str:
    """Why two constraints exclude each other, in one of their two orders; "" if they do not for certain."""
    match one.demand, other.demand:
        case Counter(unit, least, _, marker), Counter(other_unit, _, int(most), other_marker):
            if unit == other_unit and marker == other_marker and least > most:
                return f"at least {least} and at most {most} {unit} are demanded"
            if unit in ("bullets", "numbered", "sections") and other_unit == "lines" and least > most:
                return f"{least} {unit} need as many lines, and at most {most} are allowed"
            if unit == "paragraphs" and not marker and other_unit == "lines" and least > most:
                return f"{least} paragraphs need as many lines, and at most {most} are allowed"
        case demand, Forbidden(characters) if not isinstance(demand, Included) or not demand.any:
            for text in _texts(one):
                if found := next((each for each in text if each in characters), None):
                    return f'"{text}" is demanded, and "{found}" is forbidden'
        case demand, Excluded(phrases, cased):
            excluded = {phrase if cased else phrase.lower(): phrase for phrase in phrases}
            for text in _texts(one):
                phrase = _find_mention(text, excluded, cased=cased, whole=isinstance(demand, Included | Occurrences))
                if phrase is not None:
                    return f'"{text}" is demanded, and "{phrase}" is excluded'
        case demand, Occurrences(phrase, _, 0, cased):
            for text in _texts(one):
                excluded = {phrase if cased else phrase.lower(): phrase}
                if _find_mention(text, excluded, cased=cased, whole=isinstance(demand, Included | Occurrences)):
                    return f'"{text}" is demanded, and "{phrase}" is excluded'
        case _, Case(case):
            for text in _cased_texts(one):
                if text.isascii() and text != (text.lower() if case == "lower" else text.upper()):
                    return f'"{text}" is demanded, which is not in {case} case'
        case Prefix(text, _), Prefix(other_text, _):
            return _compare(text, other_text, "start")
        case Suffix(text, _), Suffix(other_text, _):
            return _compare(text[::-1], other_text[::-1], "end")
    return ""


def _texts(constraint: Constraint) -> Iterator[str]:
    """The texts that certainly appear, whatever their case."""
    match constraint.demand:
        case Included(phrases, False):
            yield from phrases
        case Occurrences(phrase, least) if least > 0:
            yield phrase
        case Prefix(text) | Suffix(text):
            yield text


def _cased_texts(constraint: Constraint) -> Iterator[str]:
    """The texts that certainly appear in this case."""
    match constraint.demand:
        case Included(phrases, False, True):
            yield from phrases
        case Occurrences(phrase, least, _, True) if least > 0:
            yield phrase


def _find_mention(text: str, excluded: Mapping[str, str], *, cased: bool, whole: bool) -> str | None:
    """The excluded word that a demanded text has in it for certain. ``whole``: its ends are ends of words.

    ``excluded``: by the word in the case in which it is compared.
    """
    words = text.split()
    inner = words if whole else words[1:-1]
    found = next((excluded[word] for word in (inner if cased else map(str.lower, inner)) if word in excluded), None)
    if found is None or "-" in text or "'" in text or "’" in text:
        return None
    return found if is_plain_word(found) and all(map(is_plain_word, words)) else None


def _compare(text: str, other: str, end: str) -> str:
    """Texts that begin with letters exclude each other unless one begins the other. Case may not matter to a rule."""
    if not text[:1].isalnum() or not other[:1].isalnum():
        return ""
    shorter, longer = sorted((text.casefold(), other.casefold()), key=len)
    if not (shorter.isascii() and longer.isascii()) or longer.startswith(shorter):
        return ""
    if " ".join(longer.split()).startswith(" ".join(shorter.split())):
        return ""
    said = (text, other) if end == "start" else (text[::-1], other[::-1])
    return f'a text cannot {end} with "{said[0]}" and with "{said[1]}"'
