"""Two voices in the first drafts of a program: the writer's, and that of a candidate for its place.

Every second draft is the candidate's. Which of the two has the first is drawn from the program's id, so that over many
programs neither has the better place, and each attempt at a job draws the same. The drafts compete like all others, so
that the text that is returned is the best of both voices. Revisions are the writer's.
"""

import hashlib
from collections.abc import Mapping, Sequence
from statistics import fmean

from service.errors import RedraftError
from service.refinement.candidate import Assessment, Candidate
from service.refinement.events import Tried
from service.refinement.roles import Models

FAILED = ("engine_failed", "cancelled")
"""How texts end that say nothing of their writer."""


def is_candidates(program: str, number: int) -> bool:
    """Whether the candidate writes the draft with that number, counted from 0.

    >>> is_candidates("ref_1", 0) != is_candidates("ref_1", 1)
    True
    """
    return (hashlib.blake2b(program.encode(), digest_size=1).digest()[0] + number) % 2 == 1


def compare(models: Models, drafts: Sequence[Candidate], assessments: Mapping[str, Assessment]) -> Tried | None:
    """How the drafts of both voices did; None unless both have some, and it is known of each whether it passes every
    hard verifier."""
    if models.candidate is None or any(draft.completion.finish_reason in FAILED for draft in drafts):
        return None
    passed: dict[str | None, list[bool]] = {models.candidate: [], models.writer: []}
    for draft in drafts:
        assessment = assessments.get(draft.id)
        if assessment is None or assessment.passed is None:
            return None
        passed[draft.model].append(assessment.passed)
    shares = [fmean(found) for found in passed.values() if found]
    return Tried(models.candidate, models.writer, *shares) if len(shares) == len(passed) else None


def describe(error: Exception) -> str:
    """Why a candidate failed, without anybody's text."""
    return str(error) if isinstance(error, RedraftError) else type(error).__name__
