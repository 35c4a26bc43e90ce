"""A chat completion as a program: a generate, a refine or a relayed chat with tools."""

import time
from collections.abc import Mapping
from dataclasses import replace

from service.api.images import fetch_images
from service.api.openai.responses import ChatFormat, ServiceTier
from service.api.openai.translate import Chat, name_callers_fields
from service.api.state import AppState
from service.programs.compile import Programs
from service.refinement.program import Generate, Program
from service.refinement.scheduling import Lane
from service.wire.requests import RefineRequest
from service.wire.tools import ToolRequest

TIERS: Mapping[Lane, ServiceTier] = {"interactive": "default", "batch": "flex"}
"""OpenAI's names of the lanes."""


async def compile_chat(chat: Chat, state: AppState, lane: Lane = "interactive") -> tuple[Program, ChatFormat]:
    """The program, and how it is answered. InvalidRequest names fields as the caller did."""
    if chat.request.is_flex:
        lane = "batch"
    with name_callers_fields(chat.names):
        if not isinstance(chat.translated, ToolRequest):
            chat = replace(chat, translated=await fetch_images(state, chat.translated))
        program = replace(_compile(chat, state.programs, lane), metadata=chat.request.metadata or {})
    return program, _make_format(chat, program)


def _compile(chat: Chat, programs: Programs, lane: Lane) -> Program:
    match chat.translated:
        case RefineRequest() as request:
            return programs.compile_refine(request, lane)
        case ToolRequest() as request:
            return programs.compile_tool_chat(request, lane)
        case request:
            open_ended = "task" not in (chat.request.redraft or {})  # a task that is named has its own limit
            return programs.compile_generate(request, lane, open_ended=open_ended)


def _make_format(chat: Chat, program: Program) -> ChatFormat:
    options = chat.request.stream_options
    return ChatFormat(
        id=program.id,
        model=chat.request.model,
        created=int(time.time()),
        texts=program.n if isinstance(program, Generate) else 1,
        include_usage=bool(options and options.include_usage),
        trace=isinstance(chat.translated, RefineRequest) and chat.translated.trace,
        reasoning=chat.translated.reasoning,
        metadata=chat.request.metadata,
        service_tier=None if chat.request.service_tier is None else TIERS[program.lane],
    )
