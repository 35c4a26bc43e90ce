import pytest

from service.engines.base import Completion, Usage
from service.refinement.archive import Archive
from service.refinement.candidate import Assessment, Candidate
from tests.support.assessments import hard, judged
from tests.support.scripts import REQUEST


def added(archive: Archive, text: str, assessment: Assessment | None = None, round: int = 0) -> Candidate:  # noqa: A002
    candidate = archive.add(round, "draft", None, REQUEST, Completion(text, "stop", Usage()))
    if assessment is not None:
        archive.assessments[candidate.id] = assessment
    return candidate


def test_an_empty_archive_has_no_incumbent() -> None:
    archive = Archive()

    assert not archive
    with pytest.raises(LookupError):
        _ = archive.incumbent


def test_candidates_are_numbered_and_kept_in_order() -> None:
    archive = Archive()
    first, second = added(archive, "One."), added(archive, "Two.", round=1)

    assert archive
    assert [(c.id, c.round, c.text) for c in archive.candidates] == [("c0", 0, "One."), ("c1", 1, "Two.")]
    assert archive.first is archive.incumbent is first
    assert (archive.assessment(second), second.parent) == (None, None)


def test_a_twin_is_the_earliest_with_the_very_same_text() -> None:
    archive = Archive()
    first = added(archive, "Two words.")
    later = [added(archive, "Two words."), added(archive, "Two words.")]

    assert archive.twin(first) is None
    assert [archive.twin(candidate) for candidate in later] == [first, first]


@pytest.mark.parametrize("other", ["two words.", "Two words.\n", "Two\nwords."])
def test_case_and_white_space_make_another_text_for_a_rule_may_ask_for_them(other: str) -> None:
    archive = Archive()
    added(archive, "Two words.")

    assert archive.twin(added(archive, other)) is None


def test_challengers_displace_the_incumbent_one_after_the_other() -> None:
    archive = Archive()
    added(archive, "zero", Assessment([judged(0.2)]))
    challengers = [added(archive, f"t{n}", Assessment([judged(s)])) for n, s in enumerate((0.5, 0.3, 0.7, 0.7))]

    archive.challenge(challengers, min_gain=0.0)

    assert archive.incumbent is challengers[2]


def test_min_gain_is_held_against_the_incumbent_of_the_moment() -> None:
    archive = Archive()
    added(archive, "zero", Assessment([judged(0.2)]))
    challengers = [added(archive, f"t{n}", Assessment([judged(s)])) for n, s in enumerate((0.35, 0.45))]

    archive.challenge(challengers, min_gain=0.2)

    assert archive.incumbent is challengers[1]


def test_a_challenger_that_was_not_evaluated_changes_nothing() -> None:
    archive = Archive()
    first = added(archive, "One.", Assessment([hard(0.0)]))

    archive.challenge([added(archive, "Two.")], min_gain=0.0)

    assert archive.incumbent is first


def test_the_winner_of_a_vote_is_the_incumbent() -> None:
    archive = Archive()
    added(archive, "One.", Assessment([hard(1.0)]))
    second = added(archive, "Two.", Assessment([hard(1.0)]))

    archive.elect(second)

    assert archive.incumbent is second
