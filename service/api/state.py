"""What the routes work with: made by the app's lifespan, one for each app, and handed to each request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from service.api.auth import Keys
from service.api.idempotency import note_key
from service.batches.batches import Batches
from service.calibration.judges import KnownJudges
from service.errors import Draining, EngineDead, EngineUnavailable, OperatorOnly, Starting, Unavailable
from service.images.fetch import RemoteImages
from service.jobs.jobs import Jobs
from service.learning.launching import Launcher
from service.learning.serving import LearnedModel
from service.metrics import READY
from service.programs.compile import Programs
from service.programs.models import ServedModels
from service.programs.run import RequestInfo, Runner
from service.tasks.task import Task

if TYPE_CHECKING:  # nothing of it is imported where traces are off
    from service.traces.traces import Traces


class Exchanges(Protocol):
    """Answers requests as an ASGI app does."""

    async def handle_request(self, scope: Scope, receive: Receive, send: Send) -> None: ...


@dataclass(frozen=True)
class AppState:
    """The app's resources.

    keys: who may send requests.
    runner: runs programs.
    programs: compiles requests into programs.
    tasks, served: what requests may name.
    images: fetches those at addresses.
    judges: what is known of the models as judges.
    jobs: requests that are answered in the background, if they are on.
    agents: answers those that speak the Model Context Protocol, if it is on.
    traces: the accounts of programs that are stored, if that is on.
    batches: batches whose lines are, with their files, likewise.
    max_file_bytes: of one upload.
    max_body_seconds: in which a piece of an upload must arrive.
    learned: the model that learns, if there is one.
    launcher: starts its runs of learning.
    operators: the names of the keys that may change what serves; None for all callers.
    """

    keys: Keys
    runner: Runner
    programs: Programs
    tasks: Mapping[str, Task]
    served: ServedModels
    images: RemoteImages
    judges: KnownJudges
    jobs: Jobs | None = None
    agents: Exchanges | None = None
    traces: "Traces | None" = None
    batches: Batches | None = None
    max_file_bytes: int = 0
    max_body_seconds: float = 0.0
    learned: LearnedModel | None = None
    launcher: Launcher | None = None
    operators: frozenset[str] | None = frozenset()

    async def check_ready(self) -> None:
        """Return while programs are served; raise Draining, or what keeps a model from serving that programs need by
        default."""
        if self.runner.admission.draining:
            raise Draining("the service is shutting down")
        await self.runner.roles(self.served.needed).check()

    async def readiness(self) -> str:
        """``ready``, or the code of the error that keeps programs from being served."""
        try:
            await self.check_ready()
        except Unavailable as error:
            return error.code
        return READY

    async def check_alive(self) -> None:
        """Raise EngineDead once the main engine is dead or has failed to start. Adapters live and die with it.

        An engine that is still loading is alive, and so is a service whose remote engines are away: a restart would
        not help.
        """
        try:
            await self.runner.engine(self.served.main).check()
        except EngineDead:
            raise
        except (Starting, EngineUnavailable):
            return


def app_state(request: Request) -> AppState:
    """The state of the app that serves the request."""
    state: AppState = request.state.app_state
    return state


def request_info(request: Request) -> RequestInfo:
    """What a program knows of a request that ``require_key`` let in."""
    state = request.state
    return RequestInfo(state.request_id, state.caller, request.scope["route"].path, state.arrived)


async def require_key(request: Request) -> None:
    """Note the name of the caller's key; Unauthorized without a valid one. Checked before the body is read."""
    headers = request.headers
    request.state.caller = app_state(request).keys.caller(headers.get("authorization"), headers.get("x-api-key"))


async def require_operator(request: Request) -> None:
    """Refuse a caller that ``require_key`` let in and that is not an operator."""
    operators = app_state(request).operators
    if operators is not None and request.state.caller not in operators:
        raise OperatorOnly("this is for operators: REDRAFT_OPERATORS names their keys")


async def require_capacity(request: Request) -> None:
    """Refuse a program that would not be admitted now, while that costs least: before the body is read.

    What is let in here can still be refused when it is admitted. A request that is sent again needs no capacity.
    """
    if not await note_key(request):
        app_state(request).runner.admission.check(request.state.caller)


async def require_batch_capacity(request: Request) -> None:
    """The same for a batch."""
    if not await note_key(request):
        app_state(request).runner.admission.check_batch(request.state.caller)
