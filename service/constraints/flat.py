"""A grammar of characters, for demands that need not know where a word ends. It costs next to nothing per token.

A text under a pattern is one regular expression, which holds the other demands too: lines, bullets, keywords and the
end. They are looser there than in a grammar of words, which knows how to end a text, and cannot hold a pattern.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from service.constraints.algebra import (
    Case,
    Compiled,
    Constraint,
    Counter,
    Excluded,
    Forbidden,
    Included,
    Matches,
    Prefix,
    Quoted,
    Suffix,
)
from service.constraints.alphabet import LETTERS, LINE, LOOSE, PLAIN, literal
from service.constraints.lexemes import Lexicon, exclude_from_text, quote
from service.constraints.patterns import FOLDED, all_texts_with
from service.constraints.plan import MOST_BLOCKS, MOST_EXCLUDED, Misfit, Plan, excluding_word, fit_case, split_phrase

MOST_CHARACTERS = 4_000
MOST_TOGETHER = 2
"""Expressions that a text matches from its first character to its last, a number of lines included."""
_GAP, _NEWLINES, _INDENT = " {1,8}", r"\n{1,3}", "(?: {1,12})?"
_ANYTHING = "(?s:.*)"


@dataclass
class _Demands:
    """What is demanded of the characters.

    with_patterns: expressions of whole texts, each of which the text matches. without_patterns: those that it does not.
    """

    removed: str = ""
    case: Literal["lower", "upper"] | None = None
    quoted: bool = False
    prefix: str = ""
    characters: tuple[int, int] | None = None
    lines: tuple[int, int | None] = (0, None)
    excluded: list[tuple[str, bool]] = field(default_factory=list)
    with_patterns: list[str] = field(default_factory=list)
    without_patterns: list[str] = field(default_factory=list)

    @property
    def lexicon(self) -> Lexicon:
        return Lexicon(removed="".join(sorted({*self.removed})), case=self.case, quoted=self.quoted)

    @property
    def visible(self) -> str:
        """The set of characters that are no white space."""
        return self.lexicon.set_of(PLAIN if self.excluded else LOOSE)


def write_flat(constraints: Sequence[Constraint], *, gives_prefix: bool) -> Compiled:
    """Compile constraints on characters and on the beginning, and patterns with what fits them. Raises Misfit."""
    demands = _gather(constraints)
    _refuse_differences(demands, constraints)
    lexicon, prefix = demands.lexicon, demands.prefix
    if demands.quoted and '"' in demands.removed:
        raise Misfit(_source(constraints, Quoted), "it has forbidden characters")
    if prefix and (not all(map(lexicon.has, prefix)) or (demands.case and prefix != getattr(prefix, demands.case)())):
        raise Misfit(_source(constraints, Prefix), "it does not fit the other rules")
    given = f'"{prefix}' if demands.quoted and prefix else prefix
    body = _write_body(demands, given, constraints)
    if demands.with_patterns or demands.without_patterns:
        return Compiled(grammar=_write_whole(demands, given, body))
    text = f"{'' if given or not demands.quoted else 'QUOTE '}TEXT{' QUOTE' if demands.quoted else ''}"
    without = f" & ~/{exclude_from_text(demands.excluded)}/" if demands.excluded else ""
    grammar = f"start: {text}\nTEXT: /{body}/{without}\n" + ('QUOTE: "\\""\n' if demands.quoted else "")
    if given and not gives_prefix:
        grammar = grammar.replace("start: ", "start: GIVEN ") + f"GIVEN: {quote(given)}\n"
        given = ""
    return Compiled(grammar=grammar, given_prefix=given)


def _refuse_differences(demands: _Demands, constraints: Sequence[Constraint]) -> None:
    """Refuse what would be too much for llguidance, be it in the middle of a text: what may not be in it, together with
    what has to be, or with a number of anything."""
    counts = demands.characters is not None or demands.lines not in ((0, None), (0, 1), (1, 1))
    for constraint in constraints:
        match constraint.demand:
            case Matches(pattern, anywhere=False) if demands.with_patterns or counts or "{" in pattern:
                raise Misfit(constraint, "that it matches nowhere does not fit what the text has to have")
            case Matches(anywhere=True) | Included() | Suffix() if len(demands.with_patterns) + counts > MOST_TOGETHER:
                raise Misfit(constraint, "there is too much that the whole text has to match")
            case Matches(anywhere=True) if demands.excluded:
                raise Misfit(constraint, "words cannot be excluded from a text that has to match a pattern")
            case Counter("lines") if demands.excluded and counts:
                raise Misfit(constraint, "words cannot be excluded from a text whose lines are counted with a pattern")
            case _:
                pass


def _gather(constraints: Sequence[Constraint]) -> _Demands:
    demands = _Demands()
    for constraint in constraints:
        match constraint.demand:
            case Forbidden(characters):
                demands.removed += characters
            case Case(wanted):
                if demands.case not in (None, wanted):
                    raise Misfit(constraint, "another rule demands the other case")
                demands.case = wanted
            case Quoted():
                demands.quoted = True
            case Prefix(text, cased):
                longer, shorter = sorted(
                    (demands.prefix, fit_case(constraints, text, cased=cased)), key=len, reverse=True
                )
                if not longer.startswith(shorter):
                    raise Misfit(constraint, "another rule demands another beginning")
                demands.prefix = longer
            case Suffix(text, cased):
                text = fit_case(constraints, text, cased=cased)
                demands.with_patterns.append(f"{_ANYTHING}{literal(text)}" + ('"' if demands.quoted else ""))
            case Counter("lines", fewest, limit):
                _narrow_lines(demands, fewest, limit, constraint)
            case Counter("bullets", fewest, limit, marker):
                demands.with_patterns.append(_bullets(fewest, limit, marker, constraint))
            case Excluded(phrases, cased):
                demands.excluded += [(excluding_word(phrase, constraint), cased) for phrase in phrases]
                if len(demands.excluded) > MOST_EXCLUDED:
                    raise Misfit(constraint, "there are too many words to exclude")
            case Included(phrases, any_of, cased):
                spelt = [_mentions(phrase, constraints, constraint, cased=cased) for phrase in phrases]
                demands.with_patterns += [f"(?:{'|'.join(spelt)})"] if any_of else spelt
            case Counter("characters", fewest, limit):
                _narrow_characters(demands, fewest, limit, constraint)
            case Matches(pattern, anywhere):
                try:
                    found = all_texts_with(pattern)
                except ValueError as error:
                    raise Misfit(constraint, str(error)) from None
                (demands.with_patterns if anywhere else demands.without_patterns).append(found)
                demands.removed += FOLDED
    return demands


def _narrow_lines(demands: _Demands, least: int, most: int | None, source: Constraint) -> None:
    fewest, limit = demands.lines
    least, most = max(least, fewest), limit if most is None else most if limit is None else min(most, limit)
    if most is not None and least > most:
        raise Misfit(source, "another rule asks for a different number")
    if max(least, most or 0) > MOST_BLOCKS:
        raise Misfit(source, "that many lines are not counted")
    demands.lines = least, most


def _narrow_characters(demands: _Demands, least: int, most: int | None, source: Constraint) -> None:
    if most is None or most > MOST_CHARACTERS or most < 4:
        raise Misfit(source, "that many characters are not counted")
    if demands.characters is not None:
        least, most = max(least, demands.characters[0]), min(most, demands.characters[1])
    if least > most:
        raise Misfit(source, "another rule asks for a different number")
    demands.characters = least, most


def _mentions(phrase: str, constraints: Sequence[Constraint], source: Constraint, *, cased: bool) -> str:
    """All texts with the phrase between white space, and a mark after it at most."""
    wanted = fit_case(constraints, " ".join(split_phrase(phrase, source)), cased=cased)
    forms = {wanted} if cased or wanted.isupper() else {wanted, wanted[:1].upper() + wanted[1:]}
    if any(isinstance(each.demand, Case) for each in constraints):
        forms = {wanted}
    spelt = "|".join(map(literal, sorted(forms)))
    return rf"(?:{_ANYTHING}[ \n])?(?:{spelt})[.,;:!?]?(?:[ \n]{_ANYTHING})?"


def _bullets(least: int, most: int | None, marker: str, source: Constraint) -> str:
    """All texts with so many bullets, whose other lines begin with letters."""
    if max(least, most or 0) > MOST_BLOCKS:
        raise Misfit(source, "that many bullets are not counted")
    line = rf"[{LETTERS}][^\n]*"
    item, others = f"{literal(marker or '-')} {line}", rf"(?:{line}\n+)*"
    more = f"{{{max(least, 1) - 1},{'' if most is None else most - 1}}}"
    return rf"{others}{item}(?:\n+{others}{item}){more}(?:\n+{line})*"


def _write_body(demands: _Demands, given: str, constraints: Sequence[Constraint]) -> str:
    """The text after what is given, without the quotation mark at its end."""
    visible, (least, most) = demands.visible, demands.lines
    if demands.characters is not None:
        return _count_characters(demands, given, constraints)
    line = f"{visible}+(?:{_GAP}{visible}+)*"
    if least > 1 or (most is not None and most > 1):
        more = f"{{{max(least, 1) - 1},{'' if most is None else most - 1}}}"
        body = f"{line}(?:{_NEWLINES}{_INDENT}{line}){more}"
        gap = _GAP
    else:
        gap = _GAP if most == 1 else f"(?:{_GAP}|{_NEWLINES}{_INDENT})"
        body = f"{visible}+(?:{gap}{visible}+)*"
    return f"(?:{gap})?{body}" if given else body


def _count_characters(demands: _Demands, given: str, constraints: Sequence[Constraint]) -> str:
    assert demands.characters is not None  # noqa: S101 - asked before
    (least, most), visible = demands.characters, demands.visible
    around = len(given) + (1 if demands.quoted else 0) + (1 if demands.quoted and not given else 0)
    if most - around < 3:
        raise Misfit(_source(constraints, Counter, "characters"), "the other rules leave no room for it")
    taken = around + (1 if given else 2)
    first, line = "" if given else visible, demands.lexicon.set_of(LINE)
    return f"{first}{line}{{{max(0, least - taken)},{most - taken}}}{visible}"


def _write_whole(demands: _Demands, given: str, body: str) -> str:
    """A grammar of one regular expression, for a text that has to match others from its first character on."""
    mark = literal('"') if demands.quoted else ""
    opened = literal(given) if given else mark
    parts = [f"/{opened}{body}{mark}/", *(f"/{pattern}/" for pattern in demands.with_patterns)]
    parts += [f"~/{pattern}/" for pattern in demands.without_patterns]
    parts += [f"~/{exclude_from_text(demands.excluded)}/"] if demands.excluded else []
    return f"start: TEXT\nTEXT: {' & '.join(parts)}\n"


def _source(constraints: Sequence[Constraint], kind: type, unit: str = "") -> Constraint:
    """The first constraint whose demand is of a kind."""
    return next(
        each
        for each in constraints
        if isinstance(each.demand, kind) and (not unit or getattr(each.demand, "unit", "") == unit)
    )


def write_open(plan: Plan) -> str:
    """A grammar of words that counts nothing, for texts of any length."""
    lexicon = plan.lexicon
    terminals = {**lexicon.terminals(), "SPACE": '" "', "QUOTE": '"\\""'}
    gaps = "SPACE"
    if not plan.single_line:
        terminals["NEWLINE"], gaps = lexicon.newline(), "SPACE | NEWLINE"
    opened, closed = ("" if plan.prefix or not lexicon.quoted else "QUOTE "), " QUOTE" if lexicon.quoted else ""
    body = "(gap body)?" if plan.prefix else "body"
    rules = [f"start: {opened}{body}{closed}", "body: (unit gap)* unit", "unit: WORD | STOP", f"gap: {gaps}"]
    return "\n".join([*rules, *(f"{name}: {definition}" for name, definition in terminals.items()), ""])
