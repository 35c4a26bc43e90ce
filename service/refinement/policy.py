"""Every rule about keeping the best, choosing parents, and stopping. No I/O, no engine, no clock.

Order of candidates: first by the hard verifiers' mean score, then by the soft verifiers'. Then texts that came to an
end of their own are before those that were cut or landed: what has no end is seldom an answer. Then by the judges'
score. A candidate passes every hard verifier exactly when the first is 1. Among equals the earlier one is better.

Keeping the best: the *incumbent* is the first draft until a challenger displaces it. Of the texts that are made
together, those that were cut in the middle (by the budget, the deadline or a failure) come after the whole ones, the
longest first.
- Where verifiers tell them apart, they decide, by however little. Where they don't, but only one of the two came to an
  end of its own, that one is better.
- Where that is no difference either, the challenger's judged score must be higher by more than ``min_gain`` and by more
  than its standard error. A judge that abstained on either, be it on one criterion, gives no reason to change.
- A model whose trust as a judge (trust.py) is ``none`` decides nothing: a challenger that only it prefers does not
  displace the incumbent.
- With select ``pairwise`` there is no judge: where nothing else tells them apart, the challenger must be preferred by
  the model in both orders of the two.
- A candidate that has not been evaluated displaces none. An incumbent that has not been evaluated yields only
  to a challenger that passes its hard verifiers.
The returned text is the incumbent, or the winner of a vote among the candidates that are as good by all but opinions:
the text that most of them share or, where none leads, the model's choice, if anything is left to spend on it.

Drafting: with constraints ``auto``, of several drafts every second one is sampled under all constraints, behind the
others, so that of equals one wins that was written freely.

Criticising: a critic is asked about each parent to be edited, or whose faults a redraft should avoid. With critic
``auto`` the model is the critic only of parents in which no evaluator found an issue, or where there are principles to
hold them against: what is known to be wrong needs no call. Nor is there one for the sake of a judge that may not drive
the loop: no revision of a text in which no evaluator found an issue could be known to be better. A text that came to no
end of its own needs no critic either: it is to be shorter, and a revision that ends is known to be better. That is
asked for once: a model whose revision is cut as well seldom ends the next one. Where judges that are trusted are sure
that a text is good and there are no principles, no model is asked either. Where they doubt it, the critic has to name
at least one issue.

Revising: with carry ``best`` and ``last`` a parent is edited, that is, shown to the model and asked for a better
version. Of a parent that breaks rules every second revision is a redraft instead: the request asked afresh, with
the broken rules and without the parent. Where an edit did not help, editing the same text again seldom does.
With carry ``none`` every revision is a redraft. With ``adaptive`` the scores decide (branching.py), again each time,
between a draft, a redraft that knows all candidates' faults, and an edit of one of them, and whether a revision is
sampled under its constraints (constraining.py) or free of them; with constraints ``auto`` a draft, too. An edit that is
no better than its parent counts as a failure of editing, however good both are.

Repairing: what code can repair in a round's texts without changing what they say becomes a candidate of that round, if
the verifiers rank it higher and no rule that passed fails. From then on it takes the place of the text that it repairs,
as a parent and in votes. Nothing can be learnt from it about writing, so the search tree does not have it.

Stopping, after each round; the first that holds is the reason:
1. evaluators_failed  every evaluation of the round's new candidates ended in an error
2. target             the incumbent is whole and passes, and its score has reached the target; without a target: nothing
                      but verifiers evaluates, and all hard ones pass or, where none is hard, all of them
3. no_issues          the critic found nothing to change in any parent, no trusted judge doubts them, no verifier
                      fails on them, and they came to their end; never with carry ``adaptive``, which makes a draft
                      instead of an edit that nobody asks for
4. fixpoint           every revision of the round is an earlier candidate's text, and the next would be made alike;
                      never with carry ``adaptive``, nor by redrafts that know no faults, which are fresh drafts
5. patience           that many rounds in a row did not change the incumbent
6. rounds             as many rounds as asked for are done
7. untrusted          the incumbent came to its end and no evaluator finds fault with it, so that only the model as a
                      judge could prefer another text, and it may not drive the loop; only with critic ``auto`` and
                      select ``score``
Between rounds and inside them, whatever has been reached by then being kept:
- budget              no tokens, calls or room in the model's context are left for the next call, or they cut a text.
                      A round that was cut short this way ends with ``target`` where that holds nevertheless
- deadline            the time is over
- engine_failed       an engine cannot serve: the writer's, the critic's, or that of a judge who picks the result. A
                      judge who scores costs only its scores, where its engine is not the writer's
- cancelled           the caller cancelled the job
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from service.engines.base import Completion
from service.refinement.branching import Expansion, Tree
from service.refinement.calibration import Calibration, Evidence
from service.refinement.candidate import Assessment, Candidate
from service.refinement.program import Critic, Search, Stop
from service.refinement.trust import UNKNOWN, JudgeTrust

StopReason = Literal[
    "target",
    "no_issues",
    "fixpoint",
    "patience",
    "rounds",
    "untrusted",
    "budget",
    "deadline",
    "evaluators_failed",
    "engine_failed",
    "cancelled",
]


def whole_first(completions: Mapping[int, Completion]) -> list[int]:
    """The numbers of texts that were made together, in the order in which they become candidates."""

    def place(number: int) -> tuple[bool, int, int]:
        completion = completions[number]
        cut = completion.is_unfinished
        return cut, -completion.usage.completion_tokens if cut else 0, number

    return sorted(completions, key=place)


UNEVALUATED = Assessment((), complete=False)
"""What is known of a candidate that was not evaluated: nothing that speaks for it."""
MODEL_JUDGE = "judge"
"""The evaluator whose word the trust is about. Other judges, such as a webhook, have an authority of their own."""

Opinion = Literal["sure", "open", "doubts"]


def displaces(
    challenger: Assessment | None, incumbent: Assessment | None, min_gain: float, trust: JudgeTrust = UNKNOWN
) -> bool:
    """Whether the challenger becomes the incumbent. Both were evaluated by the same evaluators."""
    if challenger is None:
        return False
    if incumbent is None:
        return challenger.passed is True
    if _known(challenger) != _known(incumbent):
        return _known(challenger) > _known(incumbent)
    if not (_judged(challenger) and _judged(incumbent)):
        return False
    gain = (challenger.rank.judged or 0.0) - (incumbent.rank.judged or 0.0)
    if gain <= max(min_gain, challenger.stderr):
        return False
    return trust.level != "none" or displaces(_by_others(challenger), _by_others(incumbent), min_gain)


def comparable(challenger: Assessment | None, incumbent: Assessment | None) -> bool:
    """Whether only an opinion could say which of the two is better."""
    return challenger is not None and incumbent is not None and _known(challenger) == _known(incumbent)


def ordered(candidates: Sequence[Candidate], assessments: Mapping[str, Assessment]) -> list[Candidate]:
    """The candidates from the best to the worst; those not evaluated come last."""

    def key(candidate: Candidate) -> tuple[bool, tuple[float, float, bool, float]]:
        return candidate.id in assessments, order(assessments.get(candidate.id, UNEVALUATED))

    return sorted(candidates, key=key, reverse=True)


def order(assessment: Assessment) -> tuple[float, float, bool, float]:
    """What candidates are ordered by: the larger, the better."""
    return *_known(assessment), assessment.rank.judged or 0.0


def parents(
    candidates: Sequence[Candidate], assessments: Mapping[str, Assessment], incumbent: Candidate, search: Search
) -> list[Candidate]:
    """The candidates to work on next: the ``beam`` best, of all or (carry ``last``) of the newest round.

    The incumbent leads the best of all, even where another has a higher score within the judge's error.
    """
    if search.carry == "last":
        newest = max(candidate.round for candidate in candidates)
        candidates = [candidate for candidate in candidates if candidate.round == newest]
        return ordered(candidates, assessments)[: search.beam]
    others = [candidate for candidate in ordered(candidates, assessments) if candidate is not incumbent]
    return [incumbent, *others][: search.beam]


def faultless(assessment: Assessment | None) -> bool:
    """Whether no evaluator has an issue, every verifier has a result, and the text came to its end."""
    if assessment is None:
        return True
    missing = any(e.authority == "verifier" and e.error is not None for e in assessment.evaluations)
    return not _is_at_fault(assessment) and not missing


def judges_opinion(assessment: Assessment | None, calibration: Calibration, trust: JudgeTrust = UNKNOWN) -> Opinion:
    """What the judges' score says of a candidate: ``sure`` that it is good, ``doubts``, or neither.

    ``trust``: of the model that judges; without any, its score says nothing.
    """
    if assessment is None or not _judged(assessment) or trust.level == "none":
        return "open"
    probability = calibration.fault_probability(Evidence(judged=assessment.rank.judged))
    if probability is None:
        return "open"
    if probability <= calibration.certainty:
        return "sure"
    return "doubts" if probability > calibration.silence else "open"


def asks_model(
    critic: Critic,
    assessment: Assessment | None,
    principles: Collection[str],
    opinion: Opinion = "open",
    trust: JudgeTrust = UNKNOWN,
) -> bool:
    """Whether the model is asked what is wrong with a candidate. ``opinion``: the judges'; ``trust``: of the model as a
    judge."""
    wanted = bool(principles) or opinion != "sure"
    if critic != "auto":
        return critic in ("model", "factored") and wanted
    known = assessment is not None and _is_at_fault(assessment)
    return bool(principles) if known else wanted and not _depends_on(trust, assessment)


def revisions(
    parent: Candidate, assessment: Assessment | None, earlier_revisions: int, search: Search
) -> Sequence[Expansion]:
    """The next ``branches`` revisions of a parent, which has had ``earlier_revisions``."""
    told = assessment is not None and bool(assessment.issues) and search.critic != "none"
    numbers = range(earlier_revisions, earlier_revisions + search.branches)
    redrafts = [search.carry == "none" or (told and number % 2 == 1) for number in numbers]
    return [Expansion("redraft" if redraft else "edit", parent) for redraft in redrafts]


def differs_from_next(made: Expansion, following: Sequence[Expansion], search: Search, *, told: bool) -> bool:
    """Whether what is made next is asked for in another way than ``made``. ``following``: its parent's next revisions.

    A redraft that was ``told`` nothing is a fresh draft, which its seed alone makes another one.
    """
    if search.carry == "adaptive" or (made.form == "redraft" and not told):
        return True
    return search.branches == 1 and made.form == "edit" and following[0].form == "redraft"


def drafts(count: int, *, bound: bool) -> Mapping[Expansion, int]:
    """The drafts of round 0, by how they are made. ``bound``: whether they may be under all constraints."""
    half = count // 2 if bound else 0
    plans = {Expansion("draft"): count - half, Expansion("draft", bound=True): half}
    return {expansion: number for expansion, number in plans.items() if number}


def expansions(
    candidates: Sequence[Candidate],
    assessments: Mapping[str, Assessment],
    search: Search,
    draws: random.Random,
    *,
    constrained: bool = False,
    drafts_too: bool = False,
) -> Sequence[Expansion]:
    """With carry ``adaptive``, the next ``beam`` times ``branches`` candidates to make.

    ``constrained``: whether revisions may be constrained or free, and ``drafts_too``: drafts.
    """
    told = search.critic != "none" and any(map(_is_at_fault, assessments.values()))
    rewards = {c.id: _reward(c, assessments) for c in candidates}
    tree = Tree(candidates, rewards, draws, redraft=told, constrained=constrained, drafts_too=drafts_too)
    return [tree.next() for _ in range(search.beam * search.branches)]


def _reward(candidate: Candidate, assessments: Mapping[str, Assessment]) -> float:
    """What a candidate tells of the way it was made: its score, but nothing for an edit that is no better than its
    parent. A copy of a good text is a good text, and still shows that editing it does not help."""
    found = assessments.get(candidate.id, UNEVALUATED)
    before = assessments.get(candidate.parent or "", UNEVALUATED)
    score, least = found.score or 0.0, before.score or 0.0
    improves = candidate.parent is None or (_known(found), score) > (_known(before), least)
    return score if improves else 0.0


def peers(
    candidates: Sequence[Candidate], assessments: Mapping[str, Assessment], incumbent: Candidate
) -> list[Candidate]:
    """The candidates that only an opinion could tell from the incumbent, itself included, in order of creation."""
    if incumbent.id not in assessments:
        return [incumbent]
    best = _known(assessments[incumbent.id])
    return [c for c in candidates if c.id in assessments and _known(assessments[c.id]) == best]


def by_content(candidates: Sequence[Candidate]) -> Sequence[Sequence[Candidate]]:
    """The candidates in groups that say the same to a vote, whatever their case and white space; the largest first."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(" ".join(candidate.text.split()).casefold(), []).append(candidate)
    return sorted(groups.values(), key=len, reverse=True)


def leader(groups: Sequence[Sequence[Candidate]]) -> Candidate | None:
    """The text that more of the candidates share than any other; None where no text leads."""
    largest, *others = groups
    return largest[0] if not others or len(largest) > len(others[0]) else None


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """What the stop rules look at after a round."""

    number: int
    incumbent: Assessment | None
    new: Collection[Assessment]
    critic_satisfied: bool
    only_repeats: bool
    rounds_without_gain: int
    incumbent_is_whole: bool = True


def stop_reason(facts: RoundFacts, search: Search, stop: Stop, trust: JudgeTrust = UNKNOWN) -> StopReason | None:
    """Why to end after this round; None to go on."""
    evaluations = [evaluation for assessment in facts.new for evaluation in assessment.evaluations]
    if evaluations and all(evaluation.error is not None for evaluation in evaluations):
        return "evaluators_failed"
    if facts.incumbent is not None and facts.incumbent_is_whole and _reached(facts.incumbent, stop.target):
        return "target"
    if facts.critic_satisfied:
        return "no_issues"
    if facts.only_repeats:
        return "fixpoint"
    if facts.rounds_without_gain >= stop.patience:
        return "patience"
    if facts.number >= search.rounds:
        return "rounds"
    if search.critic == "auto" and search.select == "score" and _depends_on(trust, facts.incumbent):
        return "untrusted"
    return None


def _reached(incumbent: Assessment, target: float | None) -> bool:
    if target is None:
        verifiers_only = all(evaluation.authority == "verifier" for evaluation in incumbent.evaluations)
        hard = any(evaluation.hard for evaluation in incumbent.evaluations)
        return verifiers_only and (incumbent.passed is True if hard else incumbent.score == 1.0)
    return incumbent.passed is not False and incumbent.score is not None and incumbent.score >= target


def _is_at_fault(assessment: Assessment) -> bool:
    """Whether a revision can say what to do about it: follow a rule, or come to an end."""
    return bool(assessment.issues) or not assessment.complete


def _known(assessment: Assessment) -> tuple[float, float, bool]:
    """How good a text is by all that is not an opinion: the larger, the better."""
    rank = assessment.rank
    return rank.hard or 0.0, rank.soft or 0.0, assessment.complete


def _judged(assessment: Assessment) -> bool:
    """Whether there are judges, and none of them abstained on any criterion."""
    judges = [evaluation for evaluation in assessment.evaluations if evaluation.authority == "judge"]
    scores = [score for judge in judges for score in (judge.score, *(line.score for line in judge.criteria))]
    return bool(scores) and None not in scores


def _depends_on(trust: JudgeTrust, assessment: Assessment | None) -> bool:
    """Whether only the model as a judge could prefer another text to one with this assessment, and it may not drive."""
    if trust.level == "drive" or assessment is None or not faultless(assessment):
        return False
    judges = [evaluation.evaluator for evaluation in assessment.evaluations if evaluation.authority == "judge"]
    return bool(judges) and all(judge == MODEL_JUDGE for judge in judges)


def _by_others(assessment: Assessment) -> Assessment:
    """The assessment without the model's judgement."""
    return replace(assessment, evaluations=tuple(e for e in assessment.evaluations if e.evaluator != MODEL_JUDGE))
