"""A chat completion's way through the service: it is a generate, a refine or a relayed chat with tools."""

import time
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.requests import Request

from service.api.answers import Answering
from service.api.images import with_images
from service.api.openai.responses import Chunks, generated_completion, refined_completion, relayed_completion
from service.api.openai.translate import Chat, naming
from service.api.sse import unnamed
from service.programs.compile import Programs
from service.refinement.loop import refine
from service.refinement.scheduling import Lane
from service.refinement.single import generate, relay
from service.wire.requests import RefineRequest
from service.wire.tools import ToolRequest


async def answering_chat(
    request: Request, chat: Chat, programs: Programs, lane: Lane = "interactive"
) -> Answering[Any]:
    """The program of a chat, with its images at hand. InvalidRequest names fields as the caller did."""
    with naming(chat.names):
        if not isinstance(chat.wanted, ToolRequest):
            chat = replace(chat, wanted=await with_images(request, chat.wanted))
        return _answering(chat, programs, lane)


def _answering(chat: Chat, programs: Programs, lane: Lane) -> Answering[Any]:
    model, created = chat.asked.model, int(time.time())
    options = chat.asked.stream_options
    reasoning, usage = chat.wanted.reasoning, bool(options and options.include_usage)
    chunks = partial(Chunks, model=model, created=created, include_usage=usage, reasoning=reasoning)
    if isinstance(chat.wanted, RefineRequest):
        program = programs.compile_refine(chat.wanted, lane)
        body = partial(refined_completion, model=model, created=created, trace=chat.wanted.trace, reasoning=reasoning)
        return Answering(program, refine, body, chunks(program.id, texts=1).of, unnamed)
    if isinstance(chat.wanted, ToolRequest):
        chat_with_tools = programs.compile_tool_chat(chat.wanted, lane)
        body = partial(relayed_completion, model=model, created=created, reasoning=reasoning)
        return Answering(chat_with_tools, relay, body, chunks(chat_with_tools.id, texts=1).of, unnamed)
    open_ended = "task" not in (chat.asked.redraft or {})  # who names a task wants what is its own
    generation = programs.compile_generate(chat.wanted, lane, open_ended=open_ended)
    whole = partial(generated_completion, model=model, created=created, reasoning=reasoning)
    return Answering(generation, generate, whole, chunks(generation.id, texts=generation.n).of, unnamed)
