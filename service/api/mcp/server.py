"""Redraft for agents, by the Model Context Protocol: its endpoints as tools, its tasks, rubrics and evaluators as
resources. The official SDK speaks the protocol; each POST is complete, and no session is kept."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListResourcesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    TextContent,
    TextResourceContents,
)
from sse_starlette.sse import AppStatus
from starlette.requests import Request

from service.api.answers import compile_native
from service.api.body import decode
from service.api.mcp.tools import ENDPOINTS, Endpoint, evaluator_schemas, text_of
from service.api.middleware import request_id
from service.api.routes import task_body
from service.api.state import AppState, Exchanges, request_info
from service.errors import RedraftError
from service.refinement.events import CandidateEvaluated, Critiqued, Done, Event, RoundEnded
from service.wire.problems import make_public, problem_body

Context = Any
"""The SDK's ServerRequestContext, whose type parameters say nothing here."""
JSON = "application/json"
SCHEME = "redraft://"

# At its import, sse_starlette hooks into uvicorn's end to cut streams. The service's own drain lets them end.
AppStatus.enable_automatic_graceful_drain = False


@asynccontextmanager
async def serving(state: AppState, max_body_bytes: int) -> AsyncIterator[Exchanges]:
    """What answers the endpoint's requests."""
    agents = _Agents(state)
    server: Server[Any] = Server(
        "redraft",
        version="1",
        instructions="Writes texts and improves them by feedback from evaluators, with an account of every round.",
        on_list_tools=agents.list_tools,
        on_call_tool=agents.call_tool,
        on_list_resources=agents.list_resources,
        on_read_resource=agents.read_resource,
    )
    manager = StreamableHTTPSessionManager(server, stateless=True, max_request_body_size=max_body_bytes)
    async with manager.run():
        yield manager


class _Agents:
    """Answers what agents ask for."""

    def __init__(self, state: AppState) -> None:
        self._state = state
        self._tools = [endpoint.tool() for endpoint in ENDPOINTS.values()]
        self._evaluators = evaluator_schemas()

    async def list_tools(self, context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=self._tools)

    async def call_tool(self, context: Context, params: CallToolRequestParams) -> CallToolResult:
        """Run the tool. What is wrong with its arguments is a result too, so that the agent can mend them."""
        endpoint = ENDPOINTS.get(params.name)
        if endpoint is None:
            raise MCPError(INVALID_PARAMS, f"there is no tool {params.name!r}; there are {', '.join(ENDPOINTS)}")
        try:
            return await self._run(endpoint, params.arguments or {}, context)
        except Exception as error:  # noqa: BLE001 - make_public logs what is not public
            known = make_public(error, request_id(context.request))
            return _failure(known)

    async def _run(self, endpoint: Endpoint, arguments: Mapping[str, Any], context: Context) -> CallToolResult:
        request: Request = context.request
        stated = decode(endpoint.request, json.dumps(arguments).encode(), None)
        program, form = await compile_native(stated, self._state)
        shown = 0
        async with aclosing(self._state.runner.run(program, request_info(request))) as events:
            async for event in events:
                if isinstance(event, Done):
                    answer = form.response(event)
                    break
                if message := _progress(event):
                    shown += 1
                    await context.session.report_progress(shown, None, message)
            else:
                raise RuntimeError("a program ends with Done")
        return CallToolResult(content=[text_of(answer)], structured_content=answer.model_dump(mode="json"))

    async def list_resources(self, context: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        tasks = [(f"tasks/{task.name}", task.description) for task in self._state.tasks.values()]
        rubrics = [(f"rubrics/{name}", "Criteria to add to a task's own.") for name in self._state.programs.rubrics]
        evaluators = [(f"evaluators/{kind}", "The fields of this evaluator.") for kind in self._evaluators]
        return ListResourcesResult(
            resources=[
                Resource(uri=SCHEME + path, name=path, description=description, mime_type=JSON)
                for path, description in (*tasks, *rubrics, *evaluators)
            ]
        )

    async def read_resource(self, context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        kind, _, name = params.uri.removeprefix(SCHEME).partition("/")
        found = self._find(kind, name)
        if found is None:
            raise MCPError(INVALID_PARAMS, f"there is no resource {params.uri}")
        text = json.dumps(found, ensure_ascii=False)
        return ReadResourceResult(contents=[TextResourceContents(uri=params.uri, mime_type=JSON, text=text)])

    def _find(self, kind: str, name: str) -> Mapping[str, Any] | None:
        match kind:
            case "tasks" if name in self._state.tasks:
                return task_body(self._state.tasks[name])
            case "rubrics" if name in self._state.programs.rubrics:
                return asdict(self._state.programs.rubrics[name])
            case "evaluators":
                return self._evaluators.get(name)
            case _:
                return None


def _progress(event: Event) -> str | None:
    """What an agent is told of an event; None for those that it need not know."""
    match event:
        case CandidateEvaluated(candidate, assessment):
            return f"candidate {candidate.id}: score {_rounded(assessment.score)}"
        case Critiqued():
            found = len(event.critique.findings) + len(event.critique.remarks)
            return f"round {event.round}: {found} issues"
        case RoundEnded(ended):
            return f"round {ended.number}: the best candidate is {ended.incumbent}"
        case _:
            return None


def _rounded(score: float | None) -> str:
    return "unknown" if score is None else f"{score:.2f}"


def _failure(error: RedraftError) -> CallToolResult:
    body = problem_body(error)
    return CallToolResult(content=[TextContent(text=json.dumps(body, ensure_ascii=False))], is_error=True)
