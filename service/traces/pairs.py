"""Which pairs of texts a stored trace gives: one that is better, and one that is worse, for the same prompt.

What a person said comes first:
- an edit is better than the text that it replaces,
- the candidate that was chosen is better than the others of the choice,
- one with a thumb up is better than one with a thumb down,
- one whose score is higher by at least CLEAR_GAIN is better.
Then what the evaluators found. The best candidate is better than another one
- if it passes every hard verifier and the other one does not, or
- if the verifiers rank it higher by at least CLEAR_GAIN and it fails no hard one, or
- if no verifier distinguishes them, and judges who may decide (trust.py) prefer it by at least CLEAR_GAIN and by more
  than twice the standard error of the difference.
A person's word about the same two texts outweighs theirs. A text with a thumb down is never the better one.

There is no pair of texts that are equal but for white space, none with an empty text, none with a text that was cut or
whose evaluation failed, and none for a prompt with images, which are not stored.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from service.engines.base import Completion, Usage
from service.evaluators.base import CriterionScore, Evaluation
from service.refinement import policy
from service.refinement.candidate import Assessment
from service.refinement.trust import JudgeTrust
from service.traces.store import Feedback, WholeTrace

CLEAR_GAIN = 0.2
MOST_PAIRS = 4
"""Pairs of one prompt that evaluations give."""

Source = Literal["edit", "choice", "thumb", "score", "verifiers", "judge"]
Relation = Literal["edit", "revision", "siblings", "other"]
"""How the two are related: a person's edit, a revision of the worse one, texts of the same round, or neither."""

Candidate = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts for a prompt.

    source: who says that the chosen one is better.
    chosen_id: the candidate's id; empty for a person's edit.
    broken_rules: instructions that the rejected text does not follow and the chosen one does. They may be missing in
        the prompt.
    created: when the program began, in ISO 8601.
    """

    prompt: Sequence[Mapping[str, str]]
    chosen: str
    rejected: str
    source: Source
    relation: Relation
    program: str
    task: str
    model: str
    chosen_id: str
    rejected_id: str
    broken_rules: Sequence[str]
    created: str


def find_pairs(whole: WholeTrace) -> list[Pair]:
    """All pairs of a trace, those that a person's feedback gives first."""
    reader = _Reader(whole)
    found: dict[frozenset[str], Pair] = {}
    for pair in (*reader.from_feedback(), *reader.from_evaluations()):
        texts = frozenset((_normalize(pair.chosen), _normalize(pair.rejected)))
        if len(texts) == 2 and "" not in texts:
            found.setdefault(texts, pair)
    return list(found.values())


class _Reader:
    def __init__(self, whole: WholeTrace) -> None:
        document = whole.trace.document
        self._summary = whole.trace.summary
        self._feedback = whole.feedback
        self._prompts = document["prompts"]
        self._trust = JudgeTrust(**document["judge_trust"]) if "judge_trust" in document else JudgeTrust()
        self._candidates: Mapping[str, Candidate] = {
            candidate["id"]: candidate
            for candidate in document["candidates"]
            if candidate["finish_reason"] in ("stop", "landed") and not self._has_images(candidate["prompt"])
        }
        self._disliked = {
            given.candidate for given in whole.feedback if given.kind == "thumb" and given.value == "down"
        }

    def from_feedback(self) -> Iterator[Pair]:
        for given in self._feedback:
            match given.kind:
                case "edit" if rejected := self._candidates.get(given.candidate):
                    yield self._pair("edit", given.value, rejected)
                case "choice" if chosen := self._candidates.get(given.candidate):
                    for its_id in given.value:
                        if rejected := self._candidates.get(its_id):
                            yield self._pair("choice", chosen, rejected)
        yield from self._from_ratings("thumb")
        yield from self._from_ratings("score")

    def from_evaluations(self) -> Iterator[Pair]:
        for prompt in range(len(self._prompts)):
            yield from self._from_siblings([c for c in self._candidates.values() if c["prompt"] == prompt])

    def _from_ratings(self, kind: Literal["thumb", "score"]) -> Iterator[Pair]:
        ratings = {given.candidate: _rating(given) for given in self._feedback if given.kind == kind}
        rated = [self._candidates[its_id] for its_id in ratings if its_id in self._candidates]
        for chosen in rated:
            for rejected in rated:
                gain = ratings[chosen["id"]] - ratings[rejected["id"]]
                if gain >= CLEAR_GAIN and chosen["prompt"] == rejected["prompt"]:
                    yield self._pair(kind, chosen, rejected)

    def _from_siblings(self, candidates: Sequence[Candidate]) -> Iterator[Pair]:
        assessed = {c["id"]: a for c in candidates if (a := _assessment(c)) is not None and a.score is not None}
        good = [c for c in candidates if c["id"] in assessed and c["id"] not in self._disliked]
        if not good:
            return
        chosen = max(good, key=lambda candidate: policy.order(assessed[candidate["id"]]))
        worse = [
            (self._relation(chosen, rejected), source, rejected)
            for rejected in candidates
            if rejected["id"] in assessed
            and (source := _source(assessed[chosen["id"]], assessed[rejected["id"]], self._trust))
        ]
        order: Sequence[Relation] = ("revision", "siblings", "other")
        worse.sort(key=lambda found: order.index(found[0]))
        for _, source, rejected in worse[:MOST_PAIRS]:
            yield self._pair(source, chosen, rejected)

    def _relation(self, chosen: Candidate, rejected: Candidate) -> Relation:
        ancestor = chosen["parent"]
        while ancestor is not None:
            if ancestor == rejected["id"]:
                return "revision"
            ancestor = self._candidates[ancestor]["parent"] if ancestor in self._candidates else None
        return "siblings" if chosen["round"] == rejected["round"] else "other"

    def _pair(self, source: Source, chosen: Candidate | str, rejected: Candidate) -> Pair:
        followed = set[str]() if isinstance(chosen, str) else set(_broken(chosen))
        return Pair(
            prompt=[{"role": m["role"], "content": m["content"]} for m in self._prompts[rejected["prompt"]]],
            chosen=chosen if isinstance(chosen, str) else chosen["text"],
            rejected=rejected["text"],
            source=source,
            relation="edit" if isinstance(chosen, str) else self._relation(chosen, rejected),
            program=self._summary.id,
            task=self._summary.task,
            model=self._summary.model,
            chosen_id="" if isinstance(chosen, str) else chosen["id"],
            rejected_id=rejected["id"],
            broken_rules=[rule for rule in _broken(rejected) if rule not in followed],
            created=datetime.fromtimestamp(self._summary.created, UTC).isoformat(timespec="milliseconds"),
        )

    def _has_images(self, prompt: int) -> bool:
        return any(message["images"] for message in self._prompts[prompt])


def _source(chosen: Assessment, rejected: Assessment, trust: JudgeTrust) -> Source | None:
    """Who says that one is better than the other; None if nobody does, or it is not clear."""
    if chosen.passed is True and rejected.passed is False:
        return "verifiers"
    if rejected.complete and not chosen.complete:
        return None
    chosen, rejected = replace(chosen, complete=True), replace(rejected, complete=True)
    if chosen.passed is False or not policy.displaces(chosen, rejected, CLEAR_GAIN, trust):
        return None
    if not policy.comparable(chosen, rejected):
        better, worse = chosen.rank, rejected.rank
        gain = max((better.hard or 0.0) - (worse.hard or 0.0), (better.soft or 0.0) - (worse.soft or 0.0))
        return "verifiers" if gain >= CLEAR_GAIN else None
    gain = (chosen.rank.judged or 0.0) - (rejected.rank.judged or 0.0)
    return "judge" if gain > 2 * math.hypot(chosen.stderr, rejected.stderr) else None


def _assessment(candidate: Candidate) -> Assessment | None:
    """What is known of a candidate, by the archive's own rules; None if something failed, or nothing evaluated it."""
    stated = candidate["evaluations"]
    if not stated or any(evaluation["error"] is not None for evaluation in stated):
        return None
    return Assessment(
        [
            Evaluation(
                **{**evaluation, "issues": ()}
                | {"criteria": tuple(CriterionScore(**criterion) for criterion in evaluation["criteria"])}
            )
            for evaluation in stated
        ],
        complete=Completion(candidate["text"], candidate["finish_reason"], Usage()).is_complete,
    )


def _broken(candidate: Candidate) -> list[str]:
    """The instructions of verifiers that the candidate does not follow."""
    return [
        issue["instruction"]
        for evaluation in candidate["evaluations"]
        if evaluation["authority"] == "verifier"
        for issue in evaluation["issues"]
    ]


def _rating(given: Feedback) -> float:
    return float(given.value == "up") if given.kind == "thumb" else float(given.value)


def _normalize(text: str) -> str:
    return " ".join(text.split())
