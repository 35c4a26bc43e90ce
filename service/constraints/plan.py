"""Which constraints of a request go into one grammar, and in what amounts."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from service.constraints.algebra import (
    Case,
    Constraint,
    Counter,
    Excluded,
    Forbidden,
    Included,
    Matches,
    Occurrences,
    ParagraphStart,
    Parts,
    Postscript,
    Prefix,
    Quoted,
    Suffix,
    Title,
)
from service.constraints.lexemes import SHORTEST_STEM, Lexicon, has_clear_ends, is_plain_word

MOST_WORDS = 700
"""Words of a text that is counted. For every token that may end a text, llguidance goes back over all of its words."""
MOST_LISTED = 400
"""The same where a text may end after each word, because its lines need no stop or it may have none."""
MOST_BLOCKS = 40
MOST_QUOTAS = 8
MOST_OCCURRENCES = 15
MOST_EXCLUDED = 500
MARKS_AROUND = "\"'“”‘’()[]*_,;:.!?"
LONGEST_WORD = 5
"""Letters that one word of an excluded phrase must have for the whole phrase to be excluded by it."""
BlockUnit = Literal["lines", "paragraphs", "bullets", "numbered", "sections", "parts"]
_BLOCKS: tuple[str, ...] = ("lines", "paragraphs", "bullets", "numbered", "sections", "parts")


class Misfit(Exception):
    """A constraint that does not fit with the others. ``reason``: a clause for the account."""

    def __init__(self, constraint: Constraint, reason: str) -> None:
        super().__init__(reason)
        self.constraint, self.reason = constraint, reason


@dataclass
class Range:
    """How many. ``most`` is None for no limit. ``source``: the constraint that says so."""

    least: int = 0
    most: int | None = None
    source: Constraint | None = None

    def narrow(self, least: int, most: int | None, source: Constraint) -> None:
        self.least = max(self.least, least)
        if most is not None:
            self.most = most if self.most is None else min(self.most, most)
        self.source = source
        if self.most is not None and self.least > self.most:
            raise Misfit(source, "another rule asks for a different number")

    def less(self, by: int) -> None:
        """Take off what is certain to come anyway."""
        self.least = max(0, self.least - by)
        if self.most is not None:
            self.most -= by


@dataclass(frozen=True, slots=True)
class Quota:
    """A kind of word that has to appear ``least`` to ``most`` times: one of the phrases, or a word of some form."""

    name: str
    least: int
    most: int | None
    source: Constraint
    phrases: tuple[tuple[str, ...], ...] = ()
    cased: bool = False
    form: Literal["phrase", "highlights", "placeholders", "capitals"] = "phrase"

    @property
    def words(self) -> int:
        """Words that one of them takes at most."""
        return max((len(phrase) for phrase in self.phrases), default=1)


@dataclass
class Plan:
    """The amounts of a grammar of words. ``cap``: no more words than this. ``lands``: because the tokens end there."""

    words: Range = field(default_factory=Range)
    cap: int | None = None
    lands: bool = False
    sentences: Range | None = None
    unit: BlockUnit | None = None
    blocks: Range = field(default_factory=Range)
    marker: str = ""
    avoided_in_blocks: frozenset[str] = frozenset()
    single_line: bool = False
    quotas: list[Quota] = field(default_factory=list)
    starts: dict[int, str] = field(default_factory=dict)
    prefix: str = ""
    suffix: str = ""
    title: bool = False
    postscript: str = ""
    lexicon: Lexicon = field(default_factory=Lexicon)
    excluded: tuple[tuple[str, bool], ...] = ()
    sources: dict[str, Constraint] = field(default_factory=dict)


def needs_words(constraints: Sequence[Constraint]) -> bool:
    """Whether the grammar has to go from word to word. Otherwise it can be one regular expression."""
    whole = is_one_expression(constraints)
    for constraint in constraints:
        match constraint.demand:
            case Forbidden() | Case() | Prefix() | Quoted() | Matches():
                pass
            case Included() | Suffix() | Counter("lines" | "bullets") if whole:
                pass
            case Excluded(phrases) if _can_exclude_in_text(phrases, constraints):
                pass
            case Counter("characters") | Counter("lines", _, 1):
                pass
            case _:
                return True
    return False


def is_one_expression(constraints: Sequence[Constraint]) -> bool:
    """Whether there are demands that only an expression of the whole text can hold: patterns, or bullets among a number
    of lines."""
    units = {each.demand.unit for each in constraints if isinstance(each.demand, Counter)}
    return {"lines", "bullets"} <= units or any(isinstance(each.demand, Matches) for each in constraints)


def _can_exclude_in_text(phrases: Sequence[str], constraints: Sequence[Constraint]) -> bool:
    """Whether words can be excluded from a text whose words are not read one by one. A beginning that is given may end
    in the middle of a word, and llguidance cannot count characters and exclude words at once."""
    for constraint in constraints:
        match constraint.demand:
            case Prefix() | Counter("characters"):
                return False
    return all(has_clear_ends(phrase) for phrase in phrases)


def make_plan(constraints: Sequence[Constraint], cap: int | None) -> Plan:
    """Merge the constraints. Raises Misfit for the first that does not fit. ``cap``: words that fit the tokens."""
    plan = Plan()
    removed, excluded, avoided = "", list[tuple[str, bool]](), frozenset[str]()
    case: Literal["lower", "upper"] | None = None
    quoted = strict = small = False
    sources = plan.sources
    for constraint in constraints:
        match constraint.demand:
            case Forbidden(characters):
                removed += characters
            case Case(wanted):
                if case is not None and case != wanted:
                    raise Misfit(constraint, "another rule demands the other case")
                case = wanted
            case Quoted():
                quoted = True
                sources["quoted"] = constraint
            case Excluded(phrases, cased):
                strict = True
                excluded += [(excluding_word(phrase, constraint), cased) for phrase in phrases]
                if len(excluded) > MOST_EXCLUDED:
                    raise Misfit(constraint, "there are too many words to exclude")
            case Included(phrases, any_of, cased):
                strict = True
                split = [split_phrase(phrase, constraint) for phrase in phrases]
                groups = [tuple(split)] if any_of else [(words,) for words in split]
                for group in groups:
                    _add_quota(plan, Quota("", 1, None, constraint, group, cased))
            case Occurrences(phrase, least, most, cased):
                strict = True
                if most == 0:
                    excluded.append((excluding_word(phrase, constraint), cased))
                else:
                    words = split_phrase(phrase, constraint)
                    if most is not None and (len(words) > 1 or not words[0].isalnum()):
                        raise Misfit(constraint, "a phrase of several words cannot be counted exactly")
                    _add_quota(plan, Quota("", least, most, constraint, (words,), cased))
            case Counter("words", least, most):
                strict = True
                if least > MOST_WORDS:
                    raise Misfit(constraint, "that many words are not counted")
                plan.words.narrow(least, None if most is not None and most > MOST_WORDS else most, constraint)
                if most is not None and most > MOST_WORDS and (cap is None or cap > most):
                    raise Misfit(constraint, "that many words are not counted")
            case Counter("sentences", least, most, _, words):
                strict = True
                avoided |= words
                plan.sentences = plan.sentences or Range()
                plan.sentences.narrow(least, most, constraint)
                if least > MOST_BLOCKS:
                    raise Misfit(constraint, "that many sentences are not counted")
            case Counter("highlights" | "placeholders" | "capitals" as form, least, most):
                strict = True
                if form == "capitals" and (most == 0 or any(isinstance(each.demand, Case) for each in constraints)):
                    raise Misfit(constraint, "it does not fit a rule about case")
                if most == 0:
                    removed += {"highlights": "*", "placeholders": "["}[form]
                    continue
                if form == "capitals" and most is not None:
                    small = True
                _add_quota(plan, Quota("", least, most, constraint, form=form))
            case Counter("lines", _, 1):
                plan.single_line = True
                sources["single line"] = constraint
            case Matches():
                raise Misfit(constraint, "a pattern does not fit rules that go from word to word")
            case Counter("characters"):
                raise Misfit(constraint, "characters are counted only where no words are")
            case Counter(unit, least, most, marker, words) if unit in _BLOCKS:
                strict = True
                _set_blocks(plan, unit, Range(least, most, constraint), marker, words, constraint)  # type: ignore[arg-type]
            case Parts(count, separator):
                strict = True
                _set_blocks(plan, "parts", Range(count, count, constraint), separator, frozenset(), constraint)
            case ParagraphStart(1, text):
                _set_prefix(plan, fit_case(constraints, text, cased=False), constraint)
                sources.setdefault("prefix", constraint)
            case ParagraphStart(paragraph, text):
                strict = True
                _set_blocks(plan, "paragraphs", Range(paragraph, None, constraint), "", frozenset(), constraint)
                text = fit_case(constraints, text, cased=False)
                if plan.starts.setdefault(paragraph, text) != text:
                    raise Misfit(constraint, "another rule demands another beginning of the paragraph")
                sources[f"start {paragraph}"] = constraint
            case Prefix(text, cased):
                _set_prefix(plan, fit_case(constraints, text, cased=cased), constraint)
                sources["prefix"] = constraint
            case Suffix(text, cased):
                text = fit_case(constraints, text, cased=cased)
                if plan.suffix and plan.suffix != text:
                    raise Misfit(constraint, "another rule demands another end")
                plan.suffix = text
                sources["suffix"] = constraint
            case Title():
                plan.title = True
                sources["title"] = constraint
            case Postscript(marker):
                strict = True
                plan.postscript = marker
                sources["postscript"] = constraint
            case _:
                raise Misfit(constraint, "it does not fit the others")
    plan.lexicon = Lexicon(
        strict=strict,
        endings=plan.sentences is not None,
        avoided=avoided,
        removed="".join(sorted({*removed})),
        case=case,
        quoted=quoted,
        excluded=tuple(dict.fromkeys((*excluded, *_counted_words(plan)))),
        stems=frozenset(word for word, _ in excluded if len(word) >= SHORTEST_STEM),
        small_words=small,
    )
    plan.excluded = tuple(excluded)
    for quota in plan.quotas:
        if _all_words(quota) & {word.casefold() for word, _ in excluded}:
            raise Misfit(quota.source, "another rule excludes it")
    _check_shapes(plan, sources)
    _check_fixed_texts(plan)
    if small:
        _check_capitals(plan)
    _set_cap(plan, cap)
    return plan


def _add_quota(plan: Plan, quota: Quota) -> None:
    """Add a quota, or narrow one of the same phrase. Words that are counted exactly belong to one quota only."""
    for index, other in enumerate(plan.quotas):
        if quota.form == other.form and quota.phrases == other.phrases and quota.cased == other.cased:
            merged = Range(other.least, other.most)
            merged.narrow(quota.least, quota.most, quota.source)
            plan.quotas[index] = replace(other, least=merged.least, most=merged.most, source=quota.source)
            return
        if quota.phrases == other.phrases and quota.most is None and other.most is None and quota.form == "phrase":
            least = max(quota.least, other.least)  # what is in the right case meets both
            plan.quotas[index] = replace(other, least=least, cased=True, source=quota.source)
            return
        exact = quota.most is not None or other.most is not None
        if exact and _all_words(quota) & _all_words(other):
            raise Misfit(quota.source, "another rule counts the same word")
    if len(plan.quotas) >= MOST_QUOTAS or quota.least > MOST_OCCURRENCES:
        raise Misfit(quota.source, "there are too many words to demand")
    plan.quotas.append(replace(quota, name=f"quota{len(plan.quotas)}"))


def _counted_words(plan: Plan) -> Sequence[tuple[str, bool]]:
    """The words that are counted. They come from their own steps only, so that a text is read in one way."""
    phrases = [(phrase, quota.cased) for quota in plan.quotas for phrase in quota.phrases]
    return [(phrase[0], cased) for phrase, cased in phrases if len(phrase) == 1 and phrase[0].isalnum()]


def _all_words(quota: Quota) -> set[str]:
    return {word.casefold() for phrase in quota.phrases for word in phrase}


def _set_blocks(
    plan: Plan, unit: BlockUnit, wanted: Range, marker: str, avoided: frozenset[str], source: Constraint
) -> None:
    if plan.unit is not None and (plan.unit, plan.marker) != (unit, marker):
        raise Misfit(source, f"it does not fit a rule about {plan.unit}")
    if wanted.least > MOST_BLOCKS or (wanted.most is not None and wanted.most > 1_000):
        raise Misfit(source, f"that many {unit} are not counted")
    plan.unit, plan.marker, plan.avoided_in_blocks = unit, marker, avoided
    plan.blocks.narrow(wanted.least, wanted.most, source)


def fit_case(constraints: Sequence[Constraint], text: str, *, cased: bool) -> str:
    """The text in the case that another rule demands, if its own case does not matter."""
    for constraint in constraints:
        if isinstance(constraint.demand, Case) and not cased:
            return text.lower() if constraint.demand.case == "lower" else text.upper()
    return text


def _set_prefix(plan: Plan, text: str, source: Constraint) -> None:
    """One beginning may continue another."""
    longer, shorter = sorted((plan.prefix, text), key=len, reverse=True)
    if not longer.startswith(shorter):
        raise Misfit(source, "another rule demands another beginning")
    plan.prefix = longer


def split_phrase(phrase: str, source: Constraint) -> tuple[str, ...]:
    words = tuple(phrase.split())
    if len(words) > 6 or not all(map(is_plain_word, words)):
        raise Misfit(source, "a grammar of words cannot hold all of its characters")
    return words


def excluding_word(phrase: str, source: Constraint) -> str:
    """The word by which to exclude a phrase: the longest of its words."""
    words = split_phrase(phrase, source)
    longest = max(words, key=len)
    if len(words) > 1 and len(longest) < LONGEST_WORD:
        raise Misfit(source, "a phrase of common words cannot be excluded")
    if "-" in longest or "'" in longest or "’" in longest:
        raise Misfit(source, "a word with a hyphen or an apostrophe cannot be excluded")
    return longest


def _check_shapes(plan: Plan, sources: dict[str, Constraint]) -> None:
    """Refuse the shapes that cannot be combined."""
    lexicon = plan.lexicon
    if "single line" in sources and (plan.unit or plan.title or plan.postscript):
        raise Misfit(sources["single line"], "other rules need more lines")
    if plan.sentences is not None:
        source = plan.sentences.source or next(iter(sources.values()))
        if not lexicon.stops or plan.unit in ("sections", "parts") or plan.postscript:
            raise Misfit(source, "sentences cannot be counted under the other rules")
        if lexicon.case == "lower" and not any(
            map(lexicon.has, "aeiou")
        ):  # a word without a vowel may be short for one
            raise Misfit(source, "sentences cannot be counted under the other rules")
        if lexicon.case == "upper" and plan.unit == "numbered":
            raise Misfit(source, "sentences cannot be counted under the other rules")
    for source, marks in _brought_marks(plan):
        if any(mark in lexicon.removed for mark in marks):
            raise Misfit(source, "it has forbidden characters")
    if plan.postscript and plan.unit in ("lines", "paragraphs", "parts"):
        raise Misfit(sources["postscript"], f"it does not fit a rule about {plan.unit}")
    if not lexicon.can_stop and plan.postscript:
        raise Misfit(sources["postscript"], "other rules forbid all stops")
    if not lexicon.can_stop and plan.unit == "parts":
        raise Misfit(plan.blocks.source or next(iter(sources.values())), "other rules forbid all stops")
    if plan.title and (plan.prefix or plan.starts or plan.unit == "parts"):
        raise Misfit(sources["title"], "other rules say how the text begins")
    if plan.unit is not None and any(not lexicon.has(mark) for mark in _block_marks(plan)):
        raise Misfit(plan.blocks.source or next(iter(sources.values())), "its markers are forbidden")


def _brought_marks(plan: Plan) -> Iterator[tuple[Constraint, str]]:
    """The marks that some rules bring into the text."""
    for name, marks in (("quoted", '"'), ("title", "<>")):
        if name in plan.sources:
            yield plan.sources[name], marks
    for quota in plan.quotas:
        yield quota.source, {"highlights": "*", "placeholders": "[]"}.get(quota.form, "")


def _check_fixed_texts(plan: Plan) -> None:
    """Refuse markers and beginnings of paragraphs that other rules forbid."""
    words = {word.casefold() for word, _ in plan.lexicon.excluded}
    fixed = [(plan.sources[f"start {paragraph}"], text) for paragraph, text in plan.starts.items()]
    if plan.postscript:
        fixed.append((plan.sources["postscript"], plan.postscript))
    if plan.blocks.source is not None and plan.unit == "sections":
        fixed.append((plan.blocks.source, plan.marker))
    for source, text in fixed:
        case = plan.lexicon.case
        if case is not None and text != (text.lower() if case == "lower" else text.upper()):
            raise Misfit(source, "it does not fit a rule about case")
        if not all(map(plan.lexicon.has, text)):
            raise Misfit(source, "it has forbidden characters")
        if words & {piece.strip(MARKS_AROUND).casefold() for piece in text.split()}:
            raise Misfit(source, "another rule excludes or counts one of its words")
    given = [("prefix", plan.prefix), ("postscript", plan.postscript)]
    for name, line in (*given, *(("suffix", line) for line in plan.suffix.splitlines())):
        if _may_begin_block(plan, line):
            source = plan.sources[name] if name == "suffix" else plan.blocks.source or plan.sources[name]
            raise Misfit(source, "the text of one rule may count as an item of the other")


def _may_begin_block(plan: Plan, line: str) -> bool:
    """Whether a line that begins so may count as one of the items or sections."""
    if plan.unit == "numbered":
        return line[:1].isdigit()
    return plan.unit == "sections" and line.casefold().startswith(tuple(map(str.casefold, plan.avoided_in_blocks)))


def _check_capitals(plan: Plan) -> None:
    """Refuse to count words in capitals where other rules bring some."""
    texts = [plan.prefix, plan.suffix, plan.postscript, plan.marker, *plan.starts.values()]
    texts += [word for quota in plan.quotas for phrase in quota.phrases for word in phrase]
    if any(piece.isupper() for text in texts for piece in re.split(r"[\s,;]", text)):
        source = next(quota.source for quota in plan.quotas if quota.form == "capitals")
        raise Misfit(source, "other rules bring words in capitals")


def _block_marks(plan: Plan) -> str:
    marks = {"numbered": ".1234567890", "sections": f"{plan.marker}1234567890"}.get(plan.unit or "", plan.marker)
    return marks if plan.unit != "bullets" else marks or "-"


def _set_cap(plan: Plan, cap: int | None) -> None:
    wanted, open_ended = plan.words.most, plan.unit in ("lines", "bullets") or not plan.lexicon.can_stop
    longest = MOST_LISTED if open_ended else MOST_WORDS
    counted = _dearest_counted(plan)
    if cap is not None and plan.words.source is not None and plan.words.least > cap:
        raise Misfit(plan.words.source, "max_tokens leaves no room for it")
    if counted is not None and min(cap or longest, wanted or cap or longest) > longest:
        raise Misfit(counted, "a text of that length is too long for a grammar that counts")
    needed = max(plan.words.least, 3 * plan.blocks.least, 3 * (plan.sentences.least if plan.sentences else 0), 4)
    needed += sum(quota.words * quota.least for quota in plan.quotas)
    plan.lands = cap is not None and needed <= cap <= longest and (wanted is None or cap < wanted)
    plan.cap = cap if plan.lands else wanted
    if plan.cap is None and counted is not None:
        plan.cap = longest


def _dearest_counted(plan: Plan) -> Constraint | None:
    """Of what has to be counted, what changes texts most."""
    sources = [plan.words.source, plan.blocks.source, *(quota.source for quota in plan.quotas)]
    sources += [plan.sentences.source] if plan.sentences is not None else []
    sources += [plan.sources.get(name) for name in ("suffix", "title", "postscript")]
    found = [source for source in sources if source is not None]
    return max(found, key=lambda source: source.distortion, default=None)
