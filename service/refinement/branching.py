"""Wider or deeper: which candidate to make next, decided by the scores so far.

Adaptive branching by Thompson sampling: AB-MCTS-A (Inoue et al. 2025, arXiv 2503.04412, section 3) over the tree whose
root is the request, whose first level are drafts and redrafts, and below each text the edits of it. At a node one may
make another child or go on below those it has. Each of these is an arm with a beta posterior over the rewards that it
led to, one draw from each posterior is compared, and the highest wins. At the root there are two ways to make a
child, a draft and a redraft, so which of them serves this request is learnt along the way. In the same way it is learnt
from all revisions of a form whether the next one is sampled under the constraints of its rules or free of them, and
from all drafts whether the next one is under all constraints.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from service.refinement.candidate import Candidate, Form

PRIOR = (0.5, 0.5)
"""Successes and failures that a posterior begins with: Jeffreys' prior."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """A candidate to make. ``parent``: the text to edit or, for a redraft, the text whose faults are in its prompt.

    A redraft without a parent gets the faults of all candidates. ``free``: it is sampled without constraints, although
    revisions have some. ``bound``: a draft that is sampled under all constraints, as revisions are.
    """

    form: Form
    parent: Candidate | None = None
    free: bool = False
    bound: bool = False


class Tree:
    """What is known when the next candidates are chosen.

    ``candidates``: in order of creation. ``rewards``: in [0, 1], by candidate id; without one it is 0.
    ``redraft``: whether there is anything to tell one. ``constrained``: whether revisions have constraints, and
    ``drafts_too``: whether drafts may have all of them.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        rewards: Mapping[str, float],
        draws: random.Random,
        *,
        redraft: bool,
        constrained: bool = False,
        drafts_too: bool = False,
    ) -> None:
        self._candidates = candidates
        self._rewards = rewards
        self._draws = draws
        self._forms_at_root: Sequence[Form] = ("draft", "redraft") if redraft else ("draft",)
        self._constrained = constrained
        self._drafts_too = drafts_too

    def next(self) -> Expansion:
        """Choose what to make, and whether under constraints."""
        chosen = self._place()
        if chosen.form == "draft":
            return self._bind(chosen) if self._drafts_too else chosen
        if not self._constrained:
            return chosen
        alike = [candidate for candidate in self._candidates if candidate.form == chosen.form]
        free, bound = (self._draw([each for each in alike if each.free == free]) for free in (True, False))
        return replace(chosen, free=free > bound)

    def _bind(self, draft: Expansion) -> Expansion:
        made = [candidate for candidate in self._candidates if candidate.form == "draft"]
        free, bound = (self._draw([each for each in made if each.bound == bound]) for bound in (False, True))
        return replace(draft, bound=bound > free)

    def _place(self) -> Expansion:
        """Walk from the root to where a child is to be made."""
        children = self._children(None)
        arms = {
            Expansion(form): self._draw([child for child in children if child.form == form])
            for form in self._forms_at_root
        }
        best = max(arms, key=arms.__getitem__)
        if children and self._draw(self._below_all(children)) > arms[best]:
            return self._from(self._chosen(children))
        return best

    def _from(self, node: Candidate) -> Expansion:
        """As ``_place``, from a text on."""
        while (edits := self._children(node)) and self._draw(self._below_all(edits)) > self._draw(edits):
            node = self._chosen(edits)
        return Expansion("edit", node)

    def _below_all(self, children: Sequence[Candidate]) -> Sequence[Candidate]:
        return [edit for child in children for edit in self._below(child)]

    def _chosen(self, siblings: Sequence[Candidate]) -> Candidate:
        draws = [self._draw([sibling, *self._below(sibling)]) for sibling in siblings]
        return siblings[draws.index(max(draws))]

    def _children(self, parent: Candidate | None) -> Sequence[Candidate]:
        name = parent.id if parent else None
        return [candidate for candidate in self._candidates if candidate.parent == name]

    def _below(self, node: Candidate) -> Sequence[Candidate]:
        names, found = {node.id}, []
        for candidate in self._candidates:  # each comes after its parent
            if candidate.parent in names:
                names.add(candidate.id)
                found.append(candidate)
        return found

    def _draw(self, made: Sequence[Candidate]) -> float:
        """A draw from the posterior of what an arm leads to, given what it has led to."""
        rewards = [self._rewards.get(candidate.id, 0.0) for candidate in made]
        successes, failures = PRIOR
        return self._draws.betavariate(successes + sum(rewards), failures + len(rewards) - sum(rewards))
