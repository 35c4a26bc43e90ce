"""All candidates of a program, and what is known about them. It never forgets one; the incumbent is its best."""

from collections.abc import Iterable

from service.constraints.algebra import Compiled
from service.engines.base import Completion, Usage
from service.engines.conversation import Conversation
from service.refinement import policy
from service.refinement.candidate import Assessment, Candidate, Form
from service.refinement.trust import UNKNOWN, JudgeTrust


class Archive:
    def __init__(self, judge_trust: JudgeTrust = UNKNOWN) -> None:
        self._judge_trust = judge_trust
        self.candidates: list[Candidate] = []
        self.assessments: dict[str, Assessment] = {}
        self._incumbent: Candidate | None = None
        self._by_text: dict[str, Candidate] = {}
        self._repairs: dict[str, Candidate] = {}

    def __bool__(self) -> bool:
        return bool(self.candidates)

    @property
    def incumbent(self) -> Candidate:
        """The best candidate; LookupError while there is none."""
        if self._incumbent is None:
            raise LookupError("nothing has been drafted")
        return self._incumbent

    @property
    def first(self) -> Candidate:
        return self.candidates[0]

    def add(
        self,
        round: int,  # noqa: A002
        form: Form,
        parent: str | None,
        asked: Conversation,
        completion: Completion,
        under: Compiled | None = None,
        model: str | None = None,
    ) -> Candidate:
        """Keep a new candidate. The first one is the incumbent until another displaces it."""
        candidate = Candidate(f"c{len(self.candidates)}", round, form, parent, asked, completion, under, model)
        self.candidates.append(candidate)
        self._by_text.setdefault(candidate.text, candidate)
        self._incumbent = self._incumbent or candidate
        return candidate

    @property
    def written(self) -> list[Candidate]:
        """The candidates without the repairs."""
        return [candidate for candidate in self.candidates if candidate.form != "repair"]

    def add_repair(self, parent: Candidate, text: str) -> Candidate | None:
        """Keep what code made of a candidate's text, as a candidate of the same round; None if the text is known."""
        known = self._by_text.get(text)
        completion = Completion(text, parent.completion.finish_reason, Usage())
        repair = known or self.add(parent.round, "repair", parent.id, parent.asked, completion, model=parent.model)
        self._repairs[parent.text] = repair
        return None if known else repair

    def repaired(self, candidate: Candidate) -> Candidate:
        """The repair of the candidate's text, if it is better; else the candidate itself."""
        repair = self._repairs.get(candidate.text)
        better = repair and self._displaces(repair, candidate, min_gain=0.0)
        return repair if repair and better else candidate

    def twin(self, candidate: Candidate) -> Candidate | None:
        """The earlier candidate with the very same text."""
        twin = self._by_text[candidate.text]
        return None if twin is candidate else twin

    def assessment(self, candidate: Candidate) -> Assessment | None:
        return self.assessments.get(candidate.id)

    def challenge(self, challengers: Iterable[Candidate], min_gain: float) -> None:
        """Let each challenger in turn displace the incumbent, if it is better by the rules."""
        for challenger in challengers:
            if self._displaces(challenger, self.incumbent, min_gain):
                self._incumbent = challenger

    def elect(self, candidate: Candidate) -> None:
        """Make the winner of a vote or of a comparison the incumbent."""
        self._incumbent = candidate

    def _displaces(self, challenger: Candidate, incumbent: Candidate, min_gain: float) -> bool:
        return policy.displaces(self.assessment(challenger), self.assessment(incumbent), min_gain, self._judge_trust)
