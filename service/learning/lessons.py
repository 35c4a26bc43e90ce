"""Which collected texts are lessons, and which pairs of them.

A *best text* is one to imitate. It
- passes every rule of its prompt, as the verifiers of today find, whatever was found when it was collected, and also
  if a person wrote it,
- ended by itself, is not empty, does not loop, has no thumb down, and does not repeat another lesson of its prompt,
- if it is from a stored trace, has rules, a thumb up, or a person's edit that speak for it.
Of several, a person's edits and texts with a thumb up come first, then those nearest to the prompt's median length. A
text that was sampled under a grammar, or repaired, serves only where no other one passes, and texts that were sampled
under a grammar are at most CONSTRAINED_SHARE of all.

A *pair* is two texts for one prompt, of which one is better:
- a person's *preference*, unless the rules say the contrary: an edit is better than what it replaces, a chosen text
  better than the others, one with a thumb up better than one with a thumb down, and one that passes its rules better
  than one with a thumb down,
- a *refinement*: a text that fails, and the one that was made from it and passes,
- *siblings*: a free text that passes, and one that fails.
Both ended by themselves, and neither is more than LONGEST_RATIO times as long as the other unless the rejected one
breaks a rule about its length. There are as many refinements as siblings, where both exist.

A prompt gives at most MOST_TEXTS and MOST_PAIRS, however often it was asked. What one client's traces give is at most
CLIENT_SHARE of all texts, and of all pairs, so that nobody can teach a model alone.

No lesson is from a prompt of the exam (split.py). A prompt whose rules cannot be checked by a text alone gives none.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product, zip_longest
from statistics import median
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from service.evaluators.text.loops import start_of_loop
from service.learning.collected import Collected, Source, Text
from service.learning.prompts import Prompt, Verdict
from service.learning.split import Part

MOST_TEXTS = 2
MOST_PAIRS = 2
CONSTRAINED_SHARE = 0.3
CLIENT_SHARE = 0.05
LONGEST_RATIO = 1.6

Relation = Literal["refinement", "siblings", "preference"]
_LENGTH_RULES = frozenset(("characters", "words", "sentences", "paragraphs", "lines"))


class BestText(BaseModel):
    """A text to imitate. The fields are those of a collected text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt
    text: str
    source: Source
    token_ids: tuple[int, ...] | None = None
    trace: str = ""
    client: str = ""


class LessonPair(BaseModel):
    """A better and a worse text. The fields are those of a collected text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt
    chosen: str
    rejected: str
    relation: Relation
    trace: str = ""
    client: str = ""
    chosen_ids: tuple[int, ...] | None = None
    rejected_ids: tuple[int, ...] | None = None


L = TypeVar("L", BestText, LessonPair)


@dataclass(frozen=True, slots=True)
class Lessons:
    """``left_out``: how many prompts gave nothing, by the reason. ``capped``: how many texts and pairs too many
    single clients gave."""

    texts: Sequence[BestText]
    pairs: Sequence[LessonPair]
    left_out: Mapping[str, int]
    capped: int = 0

    @property
    def traces(self) -> frozenset[str]:
        """The ids of the stored traces that they are from."""
        return frozenset((*(text.trace for text in self.texts), *(pair.trace for pair in self.pairs))) - {""}


def make_lessons(collected: Iterable[Collected], parts: Mapping[str, Part]) -> Lessons:
    """The lessons of collected texts. The same texts give the same lessons.

    parts: of the prompts, by their ids. KeyError for a prompt that has none.
    """
    texts, pairs, left_out = list[BestText](), list[LessonPair](), Counter[str]()
    for each in collected:
        if parts[each.prompt.id] != "train":
            left_out["of the exam or near to it"] += 1
        elif each.prompt.verifiers is None:
            left_out["rules that a text alone does not show"] += 1
        else:
            reader = _Reader(each)
            found, compared = list(reader.best_texts()), list(reader.pairs())
            texts += found
            pairs += compared
            if not found and not compared:
                left_out["no text passes" if reader.is_vouched else "no rules and no feedback"] += 1
    return _limit(texts, pairs, left_out)


class _Reader:
    """What one prompt's texts teach."""

    def __init__(self, collected: Collected) -> None:
        self._collected = collected
        self._prompt = collected.prompt
        self._texts = collected.texts
        self._verdicts: Sequence[Verdict] = [self._prompt.verify(text.text) for text in self._texts]
        lengths = [len(text.text) for text in self._texts if text.text.strip()]
        self._usual = median(lengths) if lengths else 0.0

    @property
    def is_vouched(self) -> bool:
        """Whether anything speaks for one of the texts."""
        return any(self._speaks_for(text) for text in self._texts)

    def best_texts(self) -> Iterator[BestText]:
        passing = [index for index in range(len(self._texts)) if self._is_good(index)]
        written = [index for index in passing if self._texts[index].source not in ("constrained", "repair")]
        seen = set[str]()
        for index in sorted(written or passing, key=self._order):
            text = self._texts[index]
            if (plain := _plain(text.text)) not in seen and len(seen) < MOST_TEXTS:
                seen.add(plain)
                yield BestText(
                    prompt=self._prompt,
                    text=text.text,
                    source=text.source,
                    token_ids=text.token_ids,
                    trace=self._collected.trace,
                    client=self._collected.client,
                )

    def pairs(self) -> Iterator[LessonPair]:
        seen = set[frozenset[str]]()
        given = [self._from_people(), *self._from_rules()]
        for chosen, rejected, relation in (each for found in given for each in found):
            texts = frozenset((_plain(self._texts[chosen].text), _plain(self._texts[rejected].text)))
            if len(texts) == 2 and texts not in seen and len(seen) < MOST_PAIRS and self._compares(chosen, rejected):
                seen.add(texts)
                better, worse = self._texts[chosen], self._texts[rejected]
                yield LessonPair(
                    prompt=self._prompt,
                    chosen=better.text,
                    rejected=worse.text,
                    relation=relation,
                    trace=self._collected.trace,
                    client=self._collected.client,
                    chosen_ids=better.token_ids,
                    rejected_ids=worse.token_ids,
                )

    def _from_people(self) -> "Iterator[_Found]":
        stated = [(said.chosen, said.rejected) for said in self._collected.preferences]
        for chosen, rejected in (*stated, *self._from_thumbs()):
            contrary = self._verdicts[rejected].passed and not self._verdicts[chosen].passed
            if not contrary and self._texts[chosen].rating != "down":
                yield chosen, rejected, "preference"

    def _from_thumbs(self) -> Iterator[tuple[int, int]]:
        every = range(len(self._texts))
        up, down = ([index for index in every if self._texts[index].rating == thumb] for thumb in ("up", "down"))
        good = [index for index in every if index not in up and self._prompt.verifiers and self._is_good(index)]
        yield from product(up, down)
        yield from zip(good, down, strict=False)

    def _from_rules(self) -> "Iterator[Sequence[_Found]]":
        """A refinement, then siblings, and so on."""
        refinements = list[_Found]()
        for index, text in enumerate(self._texts):
            if text.parent is not None and self._is_good(index) and not self._verdicts[text.parent].passed:
                refinements.append((index, text.parent, "refinement"))
        free = [index for index, text in enumerate(self._texts) if text.source == "free"]
        good = [index for index in free if self._is_good(index)]
        bad = [index for index in free if not self._verdicts[index].passed]
        siblings: list[_Found] = [(chosen, rejected, "siblings") for chosen, rejected in zip(good, bad, strict=False)]
        for found in zip_longest(refinements, siblings):
            yield [each for each in found if each is not None]

    def _is_good(self, index: int) -> bool:
        text = self._texts[index]
        allowed = text.rating != "down" and self._speaks_for(text)
        return allowed and self._verdicts[index].passed and _has_ended(text) and start_of_loop(text.text) is None

    def _speaks_for(self, text: Text) -> bool:
        """Whether there is a reason to take the text for a good one, if it passes. What a caller has asked for without
        rules is not good by itself."""
        said = text.source == "edit" or text.rating == "up"
        return not self._collected.trace or bool(self._prompt.verifiers) or said

    def _order(self, index: int) -> tuple[bool, float, int]:
        text = self._texts[index]
        praised = text.source == "edit" or text.rating == "up"
        return not praised, abs(len(text.text) - self._usual), index

    def _compares(self, chosen: int, rejected: int) -> bool:
        better, worse = self._texts[chosen], self._texts[rejected]
        if not (_has_ended(better) and _has_ended(worse) and better.text.strip() and worse.text.strip()):
            return False
        lengths = sorted((len(better.text), len(worse.text)))
        if _LENGTH_RULES.intersection(self._verdicts[rejected].rules):
            return True
        return lengths[1] <= LONGEST_RATIO * lengths[0]


_Found = tuple[int, int, Relation]


def _limit(texts: Sequence[BestText], pairs: Sequence[LessonPair], left_out: Mapping[str, int]) -> Lessons:
    """The lessons, with all limits kept."""
    once = _once(texts, lambda lesson: _plain(lesson.text), MOST_TEXTS)
    compared = _once(pairs, lambda pair: frozenset((_plain(pair.chosen), _plain(pair.rejected))), MOST_PAIRS)
    kept_texts = _repeat(_cap_clients, _cap_constrained, once)
    kept_pairs = _repeat(_cap_clients, _balance, compared)
    uncapped = len(_cap_constrained(once)) + len(_balance(compared))
    return Lessons(kept_texts, kept_pairs, dict(left_out), max(0, uncapped - len(kept_texts) - len(kept_pairs)))


def _once(lessons: Sequence[L], identity: Callable[[L], Hashable], most: int) -> Sequence[L]:
    """Each lesson once, and at most ``most`` for a conversation."""
    kept, seen = list[L](), dict[Hashable, set[Hashable]]()
    for lesson in lessons:
        known, identified = seen.setdefault(lesson.prompt.messages, set()), identity(lesson)
        if identified not in known and len(known) < most:
            known.add(identified)
            kept.append(lesson)
    return kept


def _repeat(
    one: Callable[[Sequence[L]], Sequence[L]], other: Callable[[Sequence[L]], Sequence[L]], lessons: Sequence[L]
) -> Sequence[L]:
    """Apply two limits until both are kept: each only leaves lessons out."""
    while len(fewer := one(other(lessons))) < len(lessons):
        lessons = fewer
    return lessons


def _balance(pairs: Sequence[LessonPair]) -> Sequence[LessonPair]:
    """No more refinements than siblings and the other way round, where there are both."""
    kinds = Counter(pair.relation for pair in pairs)
    both = min(kinds["refinement"], kinds["siblings"]) or len(pairs)
    kept, counts = list[LessonPair](), Counter[Relation]()
    for pair in pairs:
        counts[pair.relation] += 1
        if pair.relation == "preference" or counts[pair.relation] <= both:
            kept.append(pair)
    return kept


def _cap_clients(lessons: Sequence[L]) -> Sequence[L]:
    """At most CLIENT_SHARE of the lessons that are left from one client, and none of fewer than twenty."""
    kept = list(lessons)
    while True:
        most = max(1, int(CLIENT_SHARE * len(kept)))
        counts, fewer = Counter[str](), list[L]()
        for lesson in kept:
            counts[lesson.client] += 1
            if not lesson.client or counts[lesson.client] <= most:
                fewer.append(lesson)
        if len(fewer) < 1 / CLIENT_SHARE:
            return [lesson for lesson in fewer if not lesson.client]
        if len(fewer) == len(kept):
            return kept
        kept = fewer


def _cap_constrained(texts: Sequence[BestText]) -> Sequence[BestText]:
    """At most CONSTRAINED_SHARE of the texts sampled under a grammar."""
    others = sum(text.source != "constrained" for text in texts)
    most = int(others * CONSTRAINED_SHARE / (1 - CONSTRAINED_SHARE))
    kept, count = list[BestText](), 0
    for text in texts:
        count += text.source == "constrained"
        if text.source != "constrained" or count <= most:
            kept.append(text)
    return kept


def _has_ended(text: Text) -> bool:
    return text.finish_reason == "stop"


def _plain(text: str) -> str:
    return " ".join(text.split())
