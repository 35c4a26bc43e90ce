"""Where the tree of candidates grows next: only where it may, and mostly where it paid."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from service.constraints.algebra import Compiled, Constraint
from service.constraints.algebra import Counter as Counted
from service.engines.base import Completion, Usage
from service.refinement.branching import Expansion, Tree
from service.refinement.candidate import Candidate, Form
from tests.support.scripts import REQUEST

DRAWS = 400


@dataclass
class Grown:
    """A tree under construction: its candidates and their scores."""

    candidates: list[Candidate] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)

    def add(self, form: Form, score: float | None, parent: Candidate | None = None) -> Candidate:
        name = f"c{len(self.candidates)}"
        new = Candidate(name, 0, form, parent.id if parent else None, REQUEST, Completion(name, "stop", Usage()))
        self.candidates.append(new)
        if score is not None:
            self.scores[name] = score
        return new

    def tree(self, seed: int = 1, *, redraft: bool = True) -> Tree:
        return Tree(self.candidates, self.scores, random.Random(seed), redraft=redraft)

    def share(self, wanted: Callable[[Expansion], bool], *, redraft: bool = True) -> float:
        """How much of what is made next is as wanted."""
        tree = self.tree(redraft=redraft)
        return sum(wanted(tree.next()) for _ in range(DRAWS)) / DRAWS


@st.composite
def grown(draw: Any) -> Grown:
    tree = Grown()
    scores = st.none() | st.floats(0.0, 1.0)
    for _ in range(draw(st.integers(0, 12))):
        parent = draw(st.none() | st.sampled_from(tree.candidates)) if tree.candidates else None
        form: Form = "edit" if parent else draw(st.sampled_from(["draft", "redraft"]))
        tree.add(form, draw(scores), parent)
    return tree


@given(grown(), st.integers(0, 2**32), st.booleans())
def test_what_is_made_next_is_always_possible(tree: Grown, seed: int, redraft: bool) -> None:
    growing = tree.tree(seed, redraft=redraft)

    for _ in range(10):
        match growing.next():
            case Expansion("draft", None):
                pass
            case Expansion("redraft", None):
                assert redraft
            case Expansion("edit", Candidate() as parent):
                assert parent in tree.candidates
            case other:
                raise AssertionError(other)


@given(grown(), st.integers(0, 2**32))
def test_a_seed_repeats_what_is_made(tree: Grown, seed: int) -> None:
    one, other = tree.tree(seed), tree.tree(seed)

    assert [one.next() for _ in range(10)] == [other.next() for _ in range(10)]


def test_another_seed_makes_other_things() -> None:
    tree = Grown()
    tree.add("draft", 0.5)
    one, other = tree.tree(seed=1), tree.tree(seed=2)

    assert [one.next() for _ in range(50)] != [other.next() for _ in range(50)]


def test_with_nothing_made_yet_drafts_and_redrafts_are_equally_likely() -> None:
    share = Grown().share(lambda expansion: expansion.form == "draft")

    assert 0.4 < share < 0.6


def test_no_redraft_is_made_where_there_is_nothing_to_tell_it() -> None:
    tree = Grown()
    tree.add("draft", 0.0)
    for _ in range(8):
        tree.add("redraft", 1.0)

    assert tree.share(lambda expansion: expansion.form == "redraft", redraft=False) == 0.0
    assert tree.share(lambda expansion: expansion.form == "redraft", redraft=True) > 0.6


def _of_each_form(draft: float, redraft: float, edit: float) -> Grown:
    """Eight drafts, eight redrafts, and eight edits of the first draft."""
    tree = Grown()
    drafts = [tree.add("draft", draft) for _ in range(8)]
    for _ in range(8):
        tree.add("redraft", redraft)
        tree.add("edit", edit, drafts[0])
    return tree


def test_what_always_paid_is_what_is_mostly_made() -> None:
    drafting, redrafting, editing = (
        _of_each_form(*(1.0 if place == paid else 0.0 for place in range(3))) for paid in range(3)
    )

    assert drafting.share(lambda expansion: expansion.form == "draft") > 0.9
    assert redrafting.share(lambda expansion: expansion.form == "redraft") > 0.9
    assert editing.share(lambda expansion: expansion.form == "edit") > 0.9


def test_it_grows_wider_where_drafts_pay_and_deeper_where_edits_do() -> None:
    wider, deeper = _of_each_form(0.7, 0.7, 0.3), _of_each_form(0.3, 0.3, 0.7)

    def edits(tree: Grown) -> float:
        return tree.share(lambda expansion: expansion.form == "edit")

    assert edits(wider) < 0.2
    assert edits(deeper) > 0.8


def test_the_text_whose_edits_paid_is_edited_and_not_its_siblings() -> None:
    tree = Grown()
    good, bad = tree.add("draft", 0.0), tree.add("draft", 0.0)
    below_good = [tree.add("edit", 1.0, good) for _ in range(8)]
    for _ in range(8):
        tree.add("edit", 0.0, bad)

    edits = tree.share(lambda expansion: expansion.form == "edit")
    well_spent = tree.share(lambda expansion: expansion.parent in (good, *below_good))

    assert well_spent > 0.9 * edits > 0.2


def test_a_text_is_edited_again_where_its_own_edits_paid_and_they_are_where_theirs_did() -> None:
    def edited(own: float, theirs: float) -> Counter[str]:
        """How often the draft, its first edit or another text is edited."""
        tree = Grown()
        draft = tree.add("draft", 0.0)
        first, *_ = [tree.add("edit", own, draft) for _ in range(8)]
        for _ in range(32):
            tree.add("edit", theirs, first)
        growing = tree.tree()
        made = [growing.next() for _ in range(DRAWS)]
        names = {draft: "draft", first: "edit"}
        return Counter(names.get(each.parent, "other") for each in made if each.parent)

    wide, deep = edited(own=1.0, theirs=0.0), edited(own=0.0, theirs=1.0)

    assert wide["draft"] > 0.9 * wide.total()
    assert deep["draft"] < 0.1 * deep.total()


def test_one_good_score_does_not_end_the_search_elsewhere() -> None:
    tree = Grown()
    tree.add("draft", 1.0)
    tree.add("redraft", 0.0)

    assert 0.0 < tree.share(lambda expansion: expansion.form == "redraft") < 0.3


def _chain(length: int) -> Grown:
    """Each text is an edit of the one before."""
    tree = Grown()
    last = tree.add("draft", 0.5)
    for _ in range(length - 1):
        last = tree.add("edit", 0.5, last)
    return tree


def _star(length: int) -> Grown:
    tree = Grown()
    for _ in range(length):
        tree.add("draft", 0.5)
    return tree


def test_a_chain_may_be_longer_than_the_interpreters_stack() -> None:
    assert {_chain(1500).tree(seed).next().form for seed in range(10)} <= {"draft", "redraft", "edit"}


def test_many_candidates_cost_no_noticeable_time() -> None:
    trees: Sequence[Tree] = (_chain(64).tree(), _star(64).tree())

    for tree in trees:
        started = time.process_time()
        for _ in range(100):
            tree.next()
        assert time.process_time() - started < 20


def test_drafts_go_on_as_those_that_were_better_were_made() -> None:
    enforced = Compiled(grammar="start: WORD", enforced=(Constraint("length.words", Counted("words", most=9)),))
    good = Grown()
    for under, score in ((None, 0.1), (enforced, 0.9)):
        for _ in range(6):
            draft = good.add("draft", score)
            good.candidates[-1] = replace(draft, under=under)
    tree = Tree(good.candidates, good.scores, random.Random(1), redraft=False, drafts_too=True)

    drafts = [made for made in (tree.next() for _ in range(DRAWS)) if made.form == "draft"]

    assert sum(draft.bound for draft in drafts) > 0.8 * len(drafts) > 0
