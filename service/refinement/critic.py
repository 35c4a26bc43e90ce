"""The model as a critic: whether it doubts a text, and then what it would change.

Asked whether a text is right, a small model says yes to nearly all. So it is not asked to decide. Two measurements are
read from its probabilities: how far the text departs from what the model would have written (departures.py), and how
much more probable a Yes is than a No. Together they give the probability of a fault (calibration.py). Only if that
leaves a doubt is the model asked what is wrong, with the departures as a hint, and then it has to name something.
docs/results/critic.md has the measurements.

For its answer and its issues the critic reads what a judge reads: the request, and the text as somebody's reply between
two lines of a fence, which is not the judge's. So the critic does not defend a reply of its own.

A caller's text is compared, too: the model answers the request itself, and then reads the text as somebody else's. A
small model sees that two answers differ where it does not see that one is wrong. And the text may be the model's own
answer in other words, so it is also weighed as that answer said again. The smaller departure counts.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import from_json

from service.concurrency import gather, settle
from service.engines.base import Choose, Completion, JsonSchema, Sample, Sampling
from service.engines.conversation import Conversation
from service.evaluators.model.judge import ANSWERS, LEAST_MASS, Criterion
from service.refinement.accounting import Ledger, MeteredEngine
from service.refinement.calibration import Evidence
from service.refinement.candidate import Assessment, Candidate, Critique, Remark, Verification
from service.refinement.departures import LEAST_LOGPROB, Departure, largest, weigh
from service.refinement.program import EvaluatedProgram

SAMPLING = Sampling(temperature=0.0, max_tokens=160, thinking=False)
ANSWER_SAMPLING = Sampling(temperature=0.0, max_tokens=60, thinking=False)
"""Too few tokens for thoughts: the critic answers at once, as the judge does."""
OWN_SAMPLING = Sampling(temperature=0.0, max_tokens=144, thinking=False)
"""Of the critic's own answer to the request. The beginning of a long one is enough to compare."""

MOST_LISTED = 3
MOST_MEASURED = 2
"""Of the departures, which remarks are made of."""
MOST_CHARACTERS = 200
"""Of an issue. What is longer is cut after a sentence, if there is one."""
MOST_CALLS = 2
"""Of a critique of a text alone, once the departures are known: answer, issues."""
MOST_CRITERIA = 99
INCOMPLETE = "It was cut before it came to its end."

_SENTENCE = {"type": "string", "minLength": 1}
"""Without a largest length, which ``max_tokens`` sets anyway: counting characters costs half a second a token where the
vocabulary has 150,000 words."""
_ISSUE = {
    "type": "object",
    "properties": {"issue": _SENTENCE, "criterion": {"type": "integer", "minimum": 0, "maximum": MOST_CRITERIA}},
    "required": ["issue", "criterion"],
    "additionalProperties": False,
}


def _list_of(items: JsonSchema, name: str, least: int = 0) -> JsonSchema:
    return {
        "type": "object",
        "properties": {name: {"type": "array", "minItems": least, "maxItems": MOST_LISTED, "items": items}},
        "required": [name],
        "additionalProperties": False,
    }


ISSUES_SCHEMA = _list_of(_ISSUE, "issues", least=1)
"""The criterion is named by its number, so that all rubrics have the same grammar."""
OPEN_SCHEMA = _list_of(_ISSUE, "issues")
"""For a model that shows no evidence either way: the list may be empty."""
QUESTIONS_SCHEMA = _list_of(_SENTENCE, "questions")
SCHEMAS = (ISSUES_SCHEMA, OPEN_SCHEMA, QUESTIONS_SCHEMA)


@dataclass(frozen=True)
class ModelCritic:
    """The critic of one program.

    engine: the one that plays it.
    ledger: the program's.
    departures_of: where a text departs from what the engine's model would have written; None if that is not known.
    own: what the engine's model answers to the request itself, so that it has something to compare a text with.
    """

    brief: EvaluatedProgram
    engine: MeteredEngine
    ledger: Ledger
    departures_of: Callable[[str], Awaitable[Sequence[Departure] | None]]
    own: Completion | None = None

    async def criticise(
        self,
        candidate: Candidate,
        assessment: Assessment | None,
        principles: Sequence[str],
        *,
        factored: bool = False,
        doubted: bool = False,
    ) -> Critique:
        """Say what should change in a candidate, given what the evaluators found in it.

        principles: what the candidate should follow.
        factored: the model first asks itself questions about the candidate and answers them without seeing it: chain
            of verification (Dhuliawala et al. 2023, arXiv 2309.11495, section 3.3).
        doubted: a judge doubts the candidate, so that silence is not an answer.
        """
        found = critique_by_evaluators(candidate, assessment)
        ways = [self.brief.show(candidate.text, self.brief.critics_fence)]
        if self.own is not None:
            ways.append(self.brief.show_after(self.own, candidate.text, self.brief.critics_fence))
        *_, shown = ways
        departures = await self._departures(candidate.text)
        verifications = await self._verify(shown) if factored else ()
        known = {
            "issues": found.findings,
            "principles": principles,
            "verifications": {verification.question: verification.answer for verification in verifications},
        }
        approval, *compared = await gather(self._approve(each, known) for each in ways)
        evidence = Evidence(
            departure=None if departures is None else largest(departures),
            approval=approval,
            compared=compared[0] if compared else None,
            judged=judged_score(assessment),
        )
        probability = self.brief.calibration.fault_probability(evidence)
        found = replace(found, fault_probability=probability, verifications=verifications)
        if probability is not None and probability <= self.brief.calibration.silence and not doubted:
            return found
        return await self._name_faults(shown, known, departures or (), found)

    async def _departures(self, text: str) -> Sequence[Departure] | None:
        """Where a text departs from what the model would have written: as an answer or, where that departs less, as its
        own answer in other words. None if it is not known."""
        departures = await self.departures_of(text)
        if departures is None or self.own is None:
            return departures
        again = await weigh(self.engine, self.brief.ask_again(self.own), text)
        return departures if again is None else min(departures, again, key=largest)

    async def _approve(self, shown: Conversation, known: Mapping[str, object]) -> float | None:
        """The log-odds of Yes as the answer to whether the text is right; None if the model says something else."""
        prompts = self.brief.prompts
        asked = shown.with_user(prompts.render("doubt", **known))
        choice = await self.engine.call(Choose(asked, ANSWERS, prompts.render("doubt_prefill")))
        if math.fsum(math.exp(logprob) for logprob in choice.logprobs) < LEAST_MASS:
            return None
        yes, no = (max(logprob, LEAST_LOGPROB) for logprob in choice.logprobs)
        return yes - no

    async def _name_faults(
        self, shown: Conversation, known: Mapping[str, object], departures: Sequence[Departure], found: Critique
    ) -> Critique:
        """The critique with the model's remarks: at least one, if it doubts the text. The largest departures are the
        first."""
        # Asked for a number, a small model prefers the first.
        criteria = sorted(self.brief.criteria[:MOST_CRITERIA], key=lambda criterion: -criterion.weight)
        numbered = {str(number): criterion.name for number, criterion in enumerate(criteria, 1)}
        asked = shown.with_user(
            self.brief.prompts.render("critique", **known, criteria=numbered, departures=departures[:MOST_LISTED])
        )
        schema = OPEN_SCHEMA if found.fault_probability is None else ISSUES_SCHEMA
        await self.engine.fit(asked, SAMPLING.max_tokens)
        completion = await self.engine.call(Sample(asked, SAMPLING, schema))
        issues = parse_issues(completion.text)
        told = [issue for issue in issues or () if self.brief.critics_fence not in issue[0]]  # a small model repeats it
        seen = [self._departure(departure) for departure in departures if departure.tells][:MOST_MEASURED]
        return replace(
            found,
            remarks=_remarks([*seen, *told], criteria, found.fault_probability),
            answered=issues is not None and completion.finish_reason == "stop",
        )

    def _departure(self, departure: Departure) -> tuple[str, int]:
        told = self.brief.prompts.render("departure", passage=departure.passage, expected=departure.expected)
        return told.strip(), 0

    async def _verify(self, shown: Conversation) -> tuple[Verification, ...]:
        """As many as the budget allows in addition to the calls of a plain critique."""
        calls = self.ledger.calls_left(MOST_CALLS + 1 + MOST_LISTED)
        if calls < MOST_CALLS + 2:
            return ()
        asked = shown.with_user(self.brief.prompts.render("questions"))
        completion = await self.engine.call(Sample(asked, SAMPLING, QUESTIONS_SCHEMA))

        async def verification(question: str) -> Verification:
            prompt = self.brief.prompts.render("answer", question=question)
            answer = await self.engine.call(Sample(self.brief.request.with_user(prompt), ANSWER_SAMPLING))
            return Verification(question, answer.text.strip())

        questions = list(dict.fromkeys(_parse_questions(completion) or ()))
        return tuple(await settle(verification(question) for question in questions[: calls - MOST_CALLS - 1]))


def critique_by_evaluators(candidate: Candidate, assessment: Assessment | None) -> Critique:
    """The critique that needs no engine call."""
    if assessment is None:
        return Critique(candidate.id, ())
    found = [issue.message for issue in assessment.issues]
    if not assessment.complete:
        found.append(INCOMPLETE)
    return Critique(candidate.id, tuple(found))


def parse_issues(text: str) -> Sequence[tuple[str, int]] | None:
    """Parse the critic's issues, each with the number of its criterion, 0 for none; None if there is no list.

    If the answer was cut, its last sentence may be incomplete. An answer that is not JSON counts as one sentence.

    >>> parse_issues('{"issues": [{"issue": "It is London.", "criterion": 2}]}')
    [('It is London.', 2)]
    """
    listed = _parse_list("issues", text)
    if listed is None:
        return None
    found = []
    for entry in listed:
        fields = entry if isinstance(entry, dict) else {"issue": entry}
        sentence, number = fields.get("issue"), fields.get("criterion")
        if isinstance(sentence, str) and sentence.strip():
            found.append((_shorten(" ".join(sentence.split())), number if isinstance(number, int) else 0))
    return found


def _shorten(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return text
    cut = text[:MOST_CHARACTERS]
    whole = max(cut.rfind(end) for end in (". ", "。"))
    return cut[: whole + 1] if whole > 0 else cut.rstrip() + "…"


def _parse_questions(completion: Completion) -> Sequence[str] | None:
    listed = _parse_list("questions", completion.text)
    return None if listed is None else [entry.strip() for entry in listed if isinstance(entry, str) and entry.strip()]


def _parse_list(name: str, text: str) -> Sequence[object] | None:
    try:
        answer: Any = from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return [text] if text.strip() else None
    if not isinstance(answer, dict) or not isinstance(answer.get(name), list):
        return None
    return list(answer[name])


def _remarks(
    issues: Sequence[tuple[str, int]], criteria: Sequence[Criterion], probability: float | None
) -> tuple[Remark, ...]:
    """The remarks, each sentence once, the weightiest first; those of equal weight in the model's order."""
    heaviest = max((criterion.weight for criterion in criteria), default=1.0)
    remarks: dict[str, Remark] = {}
    for sentence, number in issues:
        criterion = criteria[number - 1] if 0 < number <= len(criteria) else None
        share = criterion.weight / heaviest if criterion else 1.0
        weight = share * (1.0 if probability is None else probability)
        remarks.setdefault(sentence, Remark(sentence, criterion.name if criterion else None, weight))
    return tuple(sorted(remarks.values(), key=lambda remark: -remark.weight))


def judged_score(assessment: Assessment | None) -> float | None:
    """The judges' common score; None without judges, or if one of them has none."""
    if assessment is None or any(e.authority == "judge" and e.score is None for e in assessment.evaluations):
        return None
    return assessment.rank.judged
