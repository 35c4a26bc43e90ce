"""Which collected texts are lessons, and which pairs of them.

A *best text* is one to imitate. It
- passes every rule of its prompt, as the verifiers of today find, whatever was found when it was collected,
- ended by itself, is not empty, does not loop, and does not repeat another lesson of its prompt.
Of several, those nearest to the prompt's median length come first, at most MOST_TEXTS for a prompt. A text that was
sampled under a grammar, or repaired, serves only where no free one passes, and such texts are at most
CONSTRAINED_SHARE of all.

A *pair* is two texts for one prompt, of which one is better:
- a *refinement*: a text that fails, and the one that was made from it and passes,
- *siblings*: a free text that passes, and one that fails,
- a person's *preference*, unless the rules say the contrary. One client's preferences are at most CLIENT_SHARE of all
  pairs, so that nobody can teach a model alone.
Both ended by themselves, and neither is more than LONGEST_RATIO times as long as the other unless the rejected one
breaks a rule about its length. There are as many refinements as siblings, where both exist, and at most MOST_PAIRS for
a prompt.

No lesson is from a prompt of the exam (split.py). A prompt whose rules cannot be checked by a text alone gives none.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import median
from typing import Literal

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
    """A text to imitate. ``token_ids``: as sampled, without the end token; None for a text that was not sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt
    text: str
    source: Source
    token_ids: tuple[int, ...] | None = None


class LessonPair(BaseModel):
    """A better and a worse text. ``client``: whose preference it is; empty if the rules say it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt
    chosen: str
    rejected: str
    relation: Relation
    client: str = ""
    chosen_ids: tuple[int, ...] | None = None
    rejected_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Lessons:
    """``left_out``: how many prompts gave nothing, by the reason."""

    texts: Sequence[BestText]
    pairs: Sequence[LessonPair]
    left_out: Mapping[str, int]


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
                left_out["no text passes"] += 1
    return Lessons(_cap_constrained(texts), _cap_clients(_balance(pairs)), dict(left_out))


class _Reader:
    """What one prompt's texts teach."""

    def __init__(self, collected: Collected) -> None:
        self._prompt = collected.prompt
        self._texts = collected.texts
        self._preferences = collected.preferences
        self._verdicts: Sequence[Verdict] = [self._prompt.verify(text.text) for text in self._texts]
        lengths = [len(text.text) for text in self._texts if text.text.strip()]
        self._usual = median(lengths) if lengths else 0.0

    def best_texts(self) -> Iterator[BestText]:
        passing = [index for index in range(len(self._texts)) if self._is_good(index)]
        free = [index for index in passing if self._texts[index].source in ("free", "edit")]
        ordered = sorted(free or passing, key=lambda index: (abs(len(self._texts[index].text) - self._usual), index))
        seen = set[str]()
        for index in ordered:
            text = self._texts[index]
            if (plain := _plain(text.text)) not in seen and len(seen) < MOST_TEXTS:
                seen.add(plain)
                yield BestText(prompt=self._prompt, text=text.text, source=text.source, token_ids=text.token_ids)

    def pairs(self) -> Iterator[LessonPair]:
        seen = set[frozenset[str]]()
        given = [self._from_preferences(), *self._from_rules()]
        for chosen, rejected, relation, client in (each for found in given for each in found):
            texts = frozenset((_plain(self._texts[chosen].text), _plain(self._texts[rejected].text)))
            if len(texts) == 2 and texts not in seen and len(seen) < MOST_PAIRS and self._compares(chosen, rejected):
                seen.add(texts)
                better, worse = self._texts[chosen], self._texts[rejected]
                yield LessonPair(
                    prompt=self._prompt,
                    chosen=better.text,
                    rejected=worse.text,
                    relation=relation,
                    client=client,
                    chosen_ids=better.token_ids,
                    rejected_ids=worse.token_ids,
                )

    def _from_preferences(self) -> "Iterator[_Found]":
        for said in self._preferences:
            contrary = self._verdicts[said.rejected].passed and not self._verdicts[said.chosen].passed
            if not contrary:
                yield said.chosen, said.rejected, "preference", said.client

    def _from_rules(self) -> "Iterator[Sequence[_Found]]":
        """A refinement, then siblings, and so on."""
        refinements = list[_Found]()
        for index, text in enumerate(self._texts):
            if text.parent is not None and self._is_good(index) and not self._verdicts[text.parent].passed:
                refinements.append((index, text.parent, "refinement", ""))
        free = [index for index, text in enumerate(self._texts) if text.source == "free"]
        good = [index for index in free if self._is_good(index)]
        bad = [index for index in free if not self._verdicts[index].passed]
        siblings: list[_Found] = [
            (chosen, rejected, "siblings", "") for chosen, rejected in zip(good, bad, strict=False)
        ]
        for found in zip_longest(refinements, siblings):
            yield [each for each in found if each is not None]

    def _is_good(self, index: int) -> bool:
        text = self._texts[index]
        return self._verdicts[index].passed and _has_ended(text) and start_of_loop(text.text) is None

    def _compares(self, chosen: int, rejected: int) -> bool:
        better, worse = self._texts[chosen], self._texts[rejected]
        if not (_has_ended(better) and _has_ended(worse) and better.text.strip() and worse.text.strip()):
            return False
        lengths = sorted((len(better.text), len(worse.text)))
        if _LENGTH_RULES.intersection(self._verdicts[rejected].rules):
            return True
        return lengths[1] <= LONGEST_RATIO * lengths[0]


_Found = tuple[int, int, Relation, str]


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


def _cap_clients(pairs: Sequence[LessonPair]) -> Sequence[LessonPair]:
    """At most CLIENT_SHARE of the pairs that are left from one client, and from each at least one of twenty."""
    kept = list(pairs)
    while True:
        most = max(1, int(CLIENT_SHARE * len(kept)))
        counts, fewer = Counter[str](), list[LessonPair]()
        for pair in kept:
            counts[pair.client] += 1
            if not pair.client or counts[pair.client] <= most:
                fewer.append(pair)
        if len(fewer) < 1 / CLIENT_SHARE:
            return [pair for pair in fewer if not pair.client]
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
