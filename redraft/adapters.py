"""What a service has learned: its adapters, and which of them serves. For operators; see docs/guide/learning.md.

>>> for adapter in client.adapters().adapters:
...     print(adapter.id, adapter.state, adapter.verdict and adapter.verdict.decision)
"""

from collections.abc import Mapping
from typing import Protocol, TypeVar
from urllib.parse import quote

from redraft.results import Result

R = TypeVar("R", bound=Result)


class Verdict(Result):
    """What the gate said after an adapter's last exam. ``against``: the adapter that served then; None for the base."""

    decision: str
    reasons: tuple[str, ...]
    against: str | None
    attempt: int
    created_at: str
    figures: dict[str, float]


class Canary(Result):
    """How an adapter did on real requests. ``against``: the adapter that served then; None for the base.

    state: ``running`` or ``ended``. verdict: ``better``, ``worse``, ``undecided`` or ``broken``. reason: why.
    share: of the requests that can be trials. promotes: whether the adapter serves as soon as it is better.
    won, lost: in how many trials its first drafts passed more or less often. gain: the mean difference.
    """

    state: str
    verdict: str
    reason: str | None
    against: str | None
    attempt: int
    share: float
    promotes: bool
    trials: int
    won: int
    lost: int
    gain: float | None
    started_at: str
    ended_at: str | None


class Adapter(Result):
    """An adapter. Of a damaged one only ``id``, ``model``, ``state`` and ``obstacle`` are known.

    model: what answers call it. state: ``current``, ``previous``, ``loaded``, ``idle`` or ``damaged``.
    obstacle: why it would not be promoted now; None if it would be.
    traces: from how many stored traces it learned. withdrawn: how many of them were withdrawn since.
    """

    id: str
    model: str
    state: str
    obstacle: str | None
    base: str | None
    rank: int | None
    texts: int | None
    pairs: int | None
    traces: int | None
    withdrawn: int | None
    recipe: str | None
    created_at: str | None
    training_seconds: float | None
    forced: bool | None
    verdict: Verdict | None
    canary: Canary | None


class WholeAdapter(Adapter):
    """An adapter with its card, in Markdown."""

    card: str | None


class Adapters(Result):
    """What serves, and all adapters, the newest first. None means the base.

    model: the name that requests use. serves: the adapter that new requests get. current: the one that should serve,
    and problem, why it does not. previous: what a rollback returns to.
    """

    model: str
    base: str
    ready: bool
    serves: str | None
    current: str | None
    problem: str | None
    previous: str | None
    can_roll_back: bool
    adapters: tuple[Adapter, ...]


class _Sends(Protocol):
    def _request(
        self, kind: type[R], method: str, path: str, body: Mapping[str, object] | None = None, key: str | None = None
    ) -> R: ...


class _AsyncSends(Protocol):
    async def _request(
        self, kind: type[R], method: str, path: str, body: Mapping[str, object] | None = None, key: str | None = None
    ) -> R: ...


class AdapterMethods:
    """What an operator's client does with adapters."""

    def adapters(self: _Sends) -> Adapters:
        """What serves, and all adapters. Raises ProblemError if the service does not learn, or for other callers.

        >>> client.adapters().serves
        """
        return self._request(Adapters, "GET", "adapters")

    def adapter(self: _Sends, adapter_id: str) -> WholeAdapter:
        """An adapter with its card. Raises ProblemError if it is unknown.

        >>> print(client.adapter("7b2f78ab38204ae9").card)
        """
        return self._request(WholeAdapter, "GET", f"adapters/{quote(adapter_id, safe='')}")

    def promote(self: _Sends, adapter_id: str) -> Adapters:
        """Let an adapter serve new requests. Raises ProblemError, with the reason, if it cannot serve.

        >>> client.promote("7b2f78ab38204ae9").serves
        """
        return self._request(Adapters, "POST", f"adapters/{quote(adapter_id, safe='')}/promote")

    def roll_back(self: _Sends) -> Adapters:
        """Let what served before the last promotion serve again. A second call takes the first one back.

        >>> client.roll_back().serves
        """
        return self._request(Adapters, "POST", "adapters/rollback")

    def start_canary(self: _Sends, adapter_id: str, *, share: float = 0.2, promote: bool = False) -> WholeAdapter:
        """Let an adapter write every second first draft for a share of the requests for ``learned``.

        share: of the requests that can be compared. promote: let it serve as soon as it is shown to be better.
        Raises ProblemError, with the reason, if it cannot be tried.

        >>> client.start_canary("7b2f78ab38204ae9", share=0.2).canary
        """
        path = f"adapters/{quote(adapter_id, safe='')}/canary"
        return self._request(WholeAdapter, "POST", path, {"share": share, "promote": promote})

    def stop_canary(self: _Sends, adapter_id: str) -> WholeAdapter:
        """End an adapter's canary without a verdict. Raises ProblemError if it does not run.

        >>> client.start_canary("7b2f78ab38204ae9")
        >>> client.stop_canary("7b2f78ab38204ae9").canary
        """
        return self._request(WholeAdapter, "DELETE", f"adapters/{quote(adapter_id, safe='')}/canary")


class AsyncAdapterMethods:
    """What an operator's client does with adapters, for asyncio."""

    async def adapters(self: _AsyncSends) -> Adapters:
        """What serves, and all adapters. See ``Redraft.adapters``.

        >>> (await client.adapters()).serves
        """
        return await self._request(Adapters, "GET", "adapters")

    async def adapter(self: _AsyncSends, adapter_id: str) -> WholeAdapter:
        """An adapter with its card. See ``Redraft.adapter``.

        >>> print((await client.adapter("7b2f78ab38204ae9")).card)
        """
        return await self._request(WholeAdapter, "GET", f"adapters/{quote(adapter_id, safe='')}")

    async def promote(self: _AsyncSends, adapter_id: str) -> Adapters:
        """Let an adapter serve new requests. See ``Redraft.promote``.

        >>> (await client.promote("7b2f78ab38204ae9")).serves
        """
        return await self._request(Adapters, "POST", f"adapters/{quote(adapter_id, safe='')}/promote")

    async def roll_back(self: _AsyncSends) -> Adapters:
        """Let what served before serve again. See ``Redraft.roll_back``.

        >>> (await client.roll_back()).serves
        """
        return await self._request(Adapters, "POST", "adapters/rollback")

    async def start_canary(
        self: _AsyncSends, adapter_id: str, *, share: float = 0.2, promote: bool = False
    ) -> WholeAdapter:
        """Let an adapter write every second first draft for a share of the requests. See ``Redraft.start_canary``.

        >>> (await client.start_canary("7b2f78ab38204ae9", share=0.2)).canary
        """
        path = f"adapters/{quote(adapter_id, safe='')}/canary"
        return await self._request(WholeAdapter, "POST", path, {"share": share, "promote": promote})

    async def stop_canary(self: _AsyncSends, adapter_id: str) -> WholeAdapter:
        """End an adapter's canary without a verdict. See ``Redraft.stop_canary``.

        >>> await client.start_canary("7b2f78ab38204ae9")
        >>> (await client.stop_canary("7b2f78ab38204ae9")).canary
        """
        return await self._request(WholeAdapter, "DELETE", f"adapters/{quote(adapter_id, safe='')}/canary")
