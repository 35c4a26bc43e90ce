"""Which program's calls the engine serves first, where more calls wait than it can take.

Programs are served by least attained service: whose calls have cost the engine least so far goes first, so that a
short program does not wait behind the later rounds of long ones (Autellix, Luo et al. 2025, arXiv 2502.13965,
section 4). Attained service counts in levels only, which double; within a level the earlier program goes first,
and what is begun is finished sooner. A batch waits behind all programs that somebody waits for.

A long program may have to let later ones pass for as long as they come. Admission bounds how many programs there are,
and a program's deadline how long it waits: then it returns the best that it has.
"""

from collections.abc import Mapping
from typing import Literal

from service.engines.base import Usage

QUANTUM_TOKENS = 128
"""The service that one short program needs: more than that, and a program is no longer in the first level."""

_ARRIVALS = 2**48
"""More programs than will ever arrive, so that a level always counts more than an arrival."""

Lane = Literal["interactive", "batch"]
"""Who waits for a program: a caller for its answer, or a batch for one of many."""

_LANES: Mapping[Lane, int] = {"interactive": 0, "batch": 2**6 * _ARRIVALS}
"""Where each lane's ranks begin. No program reaches a level so high that it falls into the next lane."""


def priority(arrival: int, attained: Usage, lane: Lane = "interactive") -> int:
    """The rank of a program's next call in the engine's queue; lower is served first.

    ``arrival``: the program's number in order of arrival. ``attained``: what its calls have cost so far. A prompt
    token that was cached cost the engine nothing. ``lane``: comes before both.
    """
    served = attained.tokens - attained.cached_tokens
    level = (served // QUANTUM_TOKENS).bit_length()
    return _LANES[lane] + level * _ARRIVALS + arrival
