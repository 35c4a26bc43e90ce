"""What orders ask for: the program of each, and how it is answered."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from service.errors import InvalidRequest, RedraftError
from service.jobs.job import Claim, JobKind, Order
from service.programs.compile import Programs
from service.refinement.events import Done
from service.refinement.program import Program
from service.wire.problems import problem_body
from service.wire.requests import CritiqueRequest, GenerateRequest, NativeRequest, RefineRequest
from service.wire.responses import NativeFormat

SHORT_BODY = 65_536
"""Characters of a request that is read in the event loop, and not in a thread."""


class JobFormat(Protocol):
    """How a job is answered. ``reasoning``: whether its events have the model's thoughts."""

    @property
    def reasoning(self) -> bool: ...

    def response(self, done: Done) -> BaseModel:
        """The whole answer."""


class Orders(Protocol):
    """Knows what a kind of orders asks for."""

    async def compile(self, claim: Claim) -> tuple[Program, JobFormat]:
        """The program of a job, and how it is answered. Raises what the request would have raised."""

    def describe(self, error: RedraftError, claim: Claim) -> Mapping[str, Any]:
        """What the caller of a job gets for an error."""


@dataclass(frozen=True)
class OrdersByKind:
    """Orders of several kinds. ``others``: for kinds that are not Redraft's own."""

    own: Orders
    others: Mapping[JobKind, Orders]

    async def compile(self, claim: Claim) -> tuple[Program, JobFormat]:
        return await self._of(claim).compile(claim)

    def describe(self, error: RedraftError, claim: Claim) -> Mapping[str, Any]:
        return self._of(claim).describe(error, claim)

    def _of(self, claim: Claim) -> Orders:
        return self.others.get(claim.order.kind, self.own)


class NativeOrders:
    """Those of Redraft's own endpoints."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    async def compile(self, claim: Claim) -> tuple[Program, NativeFormat]:
        try:
            short = len(claim.order.body) < SHORT_BODY
            request = _decode(claim.order) if short else await asyncio.to_thread(_decode, claim.order)
        except ValidationError:
            raise InvalidRequest("this version of the service no longer takes the job's request") from None
        if not self._programs.stores_traces:  # any more
            request = request.model_copy(update={"store": False})
        return self._programs.compile(request), NativeFormat.for_request(request)

    def describe(self, error: RedraftError, claim: Claim) -> Mapping[str, Any]:
        return problem_body(error)


def _decode(order: Order) -> NativeRequest:
    """The request. Raises ValidationError if it was taken on by a version that understood it otherwise."""
    match order.kind:
        case "generate":
            return GenerateRequest.model_validate_json(order.body)
        case "critique":
            return CritiqueRequest.model_validate_json(order.body)
        case "refine":
            return RefineRequest.model_validate_json(order.body)
        case kind:
            raise ValueError(f"an order of the kind {kind} is not in Redraft's own format")
