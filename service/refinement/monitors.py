"""Monitors of texts that are being written: one that is lost is stopped at once, and its tokens serve another.

A monitor asks the hard verifiers about a text's beginning (``Verifier.is_broken``). If one answers that the text fails
however it goes on, there are three cases:

- Code can repair it without taking anything away: the text goes on, and is repaired when it is finished.
- Code can repair it by taking away its end: it is complete as it is, and is stopped.
- Code cannot repair it: it is lost, and is stopped.

A text that repeats itself without end is stopped too; what comes before the repeats is kept.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import regex

from service.engines.base import FinishReason
from service.evaluators.base import Evaluator, Verifier
from service.evaluators.text.loops import LONGEST_PART, start_of_loop
from service.evaluators.text.rewriting import within_quotes
from service.evaluators.text.sentences import sentence_ends
from service.refinement.repairs import local_verifiers

log = logging.getLogger(__name__)

LOOP = "loop"
"""The name under which a loop is reported, in place of a rule's."""
LONGEST = 20_000
"""Characters of a text whose rules are looked at. Of longer ones only loops are noticed."""
_UNFINISHED_WORD = regex.compile(r"[\p{L}\p{N}\p{M}]++\Z")
_LEAST_STEP = 24
"""Characters between two looks. They grow with the text, so that all looks together take time linear in its length."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why a text was stopped.

    rule: the verifier's type, or LOOP. lost: whether no repair could make the text pass.
    """

    rule: str
    lost: bool


class Monitor:
    """A watcher of one text.

    - evaluators: the program's
    - repairs: whether code repairs its texts
    - may_lose: given the share of its tokens that a text has used, says whether it may be stopped if it is lost
    """

    finish_reason: FinishReason = "aborted"

    def __init__(self, evaluators: Sequence[Evaluator], *, repairs: bool, may_lose: Callable[[float], bool]) -> None:
        self._verifiers = [v for v in local_verifiers(evaluators) if v.hard and _looks_at_beginnings(v)]
        self._repairs = repairs
        self._may_lose = may_lose
        self._text = ""
        self._next = _LEAST_STEP
        self.stopped: Stopped | None = None

    def feed(self, piece: str, share: float) -> int | None:
        """As Watcher has it. Once the text is to end, ``stopped`` says why. Of a loop only its first part is kept."""
        self._text += piece
        if len(self._text) < self._next:
            return None
        self._next = len(self._text) + max(_LEAST_STEP, len(self._text) // 16)
        self.stopped = self._judge(share)
        if self.stopped is not None:
            return len(self._text)
        if (start := start_of_loop(self._text)) is None:
            return None
        self.stopped = Stopped(LOOP, lost=False)
        ends = (end for end in sentence_ends(self._text) if start <= end <= start + LONGEST_PART)
        return next(ends, start)

    def _judge(self, share: float) -> Stopped | None:
        beginning = _UNFINISHED_WORD.sub("", self._text)
        for verifier in list(self._verifiers) if len(beginning) <= LONGEST else ():
            try:
                lost = self._is_lost(verifier, beginning)
            except Exception as error:
                log.warning("a verifier failed", extra={"evaluator": verifier.type}, exc_info=error)
                lost = None
                self._verifiers.remove(verifier)
            if lost is False or (lost and self._may_lose(share)):
                return Stopped(verifier.type, lost)
        return None

    def _is_lost(self, verifier: Verifier, beginning: str) -> bool | None:
        """True of a beginning that fails and cannot be repaired, False of one that has all that it needs; else None."""
        if not verifier.is_broken(beginning):
            return None
        repaired = within_quotes(beginning, verifier.repair) if self._repairs else None
        if repaired is None or verifier.is_broken(repaired):
            return True
        return False if len(repaired.strip()) < len(beginning.strip()) else None


def _looks_at_beginnings(verifier: Verifier) -> bool:
    return type(verifier).is_broken is not Verifier.is_broken
