"""A request of OpenAI's clients as a program: a generate, a refine or a relayed chat with tools."""

import time
from collections.abc import Mapping
from dataclasses import replace

from service.api.images import fetch_images
from service.api.openai.completions import ChatFormat, ServiceTier
from service.api.openai.fields import rename_fields
from service.api.openai.response_bodies import ResponseBody
from service.api.openai.response_events import ResponseFormat
from service.api.openai.response_requests import StatedResponse
from service.api.openai.translate import Chat, name_callers_fields
from service.api.state import AppState
from service.jobs.job import name_program
from service.programs.compile import Programs
from service.refinement.program import Generate, Program
from service.refinement.scheduling import Lane
from service.wire.requests import RefineRequest
from service.wire.tools import ToolRequest

TIERS: Mapping[Lane, ServiceTier] = {"interactive": "default", "batch": "flex"}
"""OpenAI's names of the lanes."""


async def compile_chat(
    chat: Chat, state: AppState, lane: Lane = "interactive", job: str | None = None
) -> tuple[Program, ChatFormat]:
    """The program, and how it is answered. InvalidRequest names fields as the caller did.

    job: the id of the job that the program belongs to.
    """
    program = await compile_program(chat, state, lane, job)
    return program, _make_chat_format(chat, program)


async def compile_response(
    stated: StatedResponse, state: AppState, lane: Lane = "interactive", job: str | None = None
) -> tuple[Program, ResponseFormat]:
    """The same for a Responses request."""
    with rename_fields(stated.name_as_caller):
        program = await compile_program(stated.chat, state, lane, job)
    return program, _make_response_format(stated, program)


async def compile_program(chat: Chat, state: AppState, lane: Lane, job: str | None = None) -> Program:
    """The chat's program. InvalidRequest names fields as the caller did."""
    if chat.request.is_flex:
        lane = "batch"
    with name_callers_fields(chat.names):
        if not isinstance(chat.translated, ToolRequest):
            chat = replace(chat, translated=await fetch_images(state, chat.translated))
        program = replace(_compile_kind(chat, state.programs, lane), metadata=chat.request.metadata or {})
    return program if job is None else replace(program, id=name_program(job, program.id))


def _compile_kind(chat: Chat, programs: Programs, lane: Lane) -> Program:
    match chat.translated:
        case RefineRequest() as request:
            return programs.compile_refine(request, lane)
        case ToolRequest() as request:
            return programs.compile_tool_chat(request, lane)
        case request:
            open_ended = "task" not in (chat.request.redraft or {})  # a task that is named has its own limit
            return programs.compile_generate(request, lane, open_ended=open_ended)


def _make_chat_format(chat: Chat, program: Program) -> ChatFormat:
    options = chat.request.stream_options
    return ChatFormat(
        id=program.id,
        model=chat.request.model,
        created=int(time.time()),
        texts=program.n if isinstance(program, Generate) else 1,
        include_usage=bool(options and options.include_usage),
        trace=has_trace(chat),
        reasoning=chat.translated.reasoning,
        metadata=chat.request.metadata,
        service_tier=_tier(chat, program),
    )


def _make_response_format(stated: StatedResponse, program: Program) -> ResponseFormat:
    request = stated.request
    begun = ResponseBody(
        id=program.id,
        created_at=int(time.time()),
        status="in_progress",
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        metadata=request.metadata or {},
        model=request.model,
        output=[],
        parallel_tool_calls=request.parallel_tool_calls is not False,
        reasoning={"effort": request.reasoning.effort if request.reasoning else None, "summary": None},
        service_tier=_tier(stated.chat, program),
        temperature=request.temperature,
        text={"format": request.stated_format()},
        tool_choice=request.stated_tool_choice(),
        tools=[tool.model_dump(exclude_none=True, by_alias=True) for tool in request.tools or ()],
        top_p=request.top_p,
    )
    return ResponseFormat(begun, trace=has_trace(stated.chat))


def has_trace(chat: Chat) -> bool:
    """Whether the account of a refine has its rounds."""
    return isinstance(chat.translated, RefineRequest) and chat.translated.trace


def _tier(chat: Chat, program: Program) -> ServiceTier | None:
    """The tier that serves a request that asks for one."""
    return None if chat.request.service_tier is None else TIERS[program.lane]
