"""What the routes work with: made by the app's lifespan, one for each app, and handed to each request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request

from service.api.auth import Keys
from service.engines.base import Engine
from service.errors import Draining, EngineDead, EngineUnavailable, Starting, Unavailable
from service.images.fetch import RemoteImages
from service.metrics import READY, Metrics
from service.programs.admission import Admission
from service.programs.background import Background
from service.programs.compile import Programs
from service.programs.models import ServedModels
from service.refinement.roles import Models, Roles
from service.tasks.task import Task


@dataclass(frozen=True)
class Desk:
    """``engine`` gives a model's engine once it serves; before that it raises Starting, or EngineDead if it never
    will."""

    engine: Callable[[str], Engine]
    admission: Admission
    background: Background
    keys: Keys
    metrics: Metrics
    programs: Programs
    tasks: Mapping[str, Task]
    served: ServedModels
    images: RemoteImages

    def roles(self, models: Models) -> Roles:
        """The engines of a program's models. Raises what ``engine`` raises."""
        return Roles(self.engine(models.writer), self.engine(models.critic), self.engine(models.judge))

    async def check_ready(self) -> None:
        """Return while programs are served; raise Draining, or what keeps a model from serving that programs need by
        default."""
        if self.admission.draining:
            raise Draining("the service is shutting down")
        await self.roles(self.served.needed).check()

    async def state(self) -> str:
        """``ready``, or the code of the error that keeps programs from being served."""
        try:
            await self.check_ready()
        except Unavailable as error:
            return error.code
        return READY

    async def check_alive(self) -> None:
        """Raise EngineDead once the main engine is dead or has failed to start. Adapters live and die with it.

        One that still loads is alive, and so is the service without remote engines: a new start would mend nothing.
        """
        try:
            await self.engine(self.served.main).check()
        except EngineDead:
            raise
        except (Starting, EngineUnavailable):
            return


def desk_of(request: Request) -> Desk:
    desk: Desk = request.state.desk
    return desk


async def authenticated(request: Request) -> str:
    """The name of the caller's key; Unauthorized without a valid one. Checked before the body is read."""
    caller = desk_of(request).keys.caller(request.headers.get("authorization"))
    request.state.caller = caller
    return caller


async def has_room(request: Request) -> None:
    """Refuse a program that would not be admitted now, while that costs least: before the body is read.

    What is let in here can still be refused when it is admitted.
    """
    desk_of(request).admission.check(request.state.caller)


async def has_room_for_batch(request: Request) -> None:
    """The same for a batch."""
    desk_of(request).admission.check_batch(request.state.caller)
