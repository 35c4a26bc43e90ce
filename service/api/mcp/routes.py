"""The endpoint of the Model Context Protocol."""

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.state import app_state, require_key
from service.errors import NotFound

router = APIRouter(dependencies=[Depends(require_key)])


class _Exchange(Response):
    """A request that the SDK answers."""

    def __init__(self, request: Request) -> None:
        self.background = None
        self._manager = app_state(request).agents
        if self._manager is None:
            raise NotFound("this service serves no agents: its operator has not set REDRAFT_MCP")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._manager is not None:
            await self._manager.handle_request(scope, receive, send)


@router.post("/mcp", include_in_schema=False)  # the protocol describes itself
async def exchange(request: Request) -> Response:
    """Tools `refine`, `critique` and `generate`; tasks, rubrics and evaluators as resources."""
    return _Exchange(request)
