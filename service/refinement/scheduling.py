"""Which program's calls the engine serves first, where more calls wait than it can take.

Programs are served by least attained service: whose calls have cost the engine least so far goes first, so that a
short program does not wait behind the later rounds of long ones (Autellix, Luo et al. 2025, arXiv 2502.13965,
section 4). Attained service is told apart in levels only, which double; within a level the earlier program goes first,
and what is begun is finished sooner.

A long program may have to let later ones pass for as long as they come. Admission bounds how many programs there are,
and a program's deadline how long it waits: then it returns the best that it has.
"""

from service.engines.base import Usage

QUANTUM_TOKENS = 128
"""The service that one short program needs: more than that, and a program is no longer in the first level."""

_ARRIVALS = 2**48
"""More programs than will ever arrive, so that a level always counts more than an arrival."""

BEHIND_ALL = 2**6 * _ARRIVALS
"""Programs that are numbered from here on are served behind all others, for no program reaches so high a level."""


def priority(arrival: int, attained: Usage) -> int:
    """The rank of a program's next call in the engine's queue; lower is served first.

    ``arrival``: the program's number in order of arrival. ``attained``: what its calls have cost so far. A prompt
    token that was cached cost the engine nothing.
    """
    served = attained.tokens - attained.cached_tokens
    level = (served // QUANTUM_TOKENS).bit_length()
    return level * _ARRIVALS + arrival
