"""Tool calls that a caller insists on, written by an engine that knows no tools.

If the model has to call one of the offered functions, no call has to be recognised in a text: the name is one of a
closed set, and the arguments are JSON that fits a schema. Every engine can be held to both. A model that may also
answer needs a server that reads the calls of its family (service/engines/relay.py).
"""

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import replace

from service.engines.base import Completion, Engine, Sample, Thought, Usage
from service.engines.relay import CallPiece, MessageEnd, MessagePiece, relay_finish
from service.refinement.held import hold
from service.refinement.program import ForcedCall


async def write_call(
    call: ForcedCall, engine: Engine, *, threads: Executor | None = None, priority: int = 0
) -> AsyncGenerator[MessagePiece | MessageEnd, None]:
    """Yield the call in pieces, then how it ended. A function is chosen first where there are several.

    Raises InvalidRequest where the arguments of one cannot be held to their schema, and FormNotKept where finished
    arguments do not fit theirs.
    """
    forms = await asyncio.get_running_loop().run_in_executor(threads, call.forms)
    conversation, chosen, usage = call.request, 0, Usage()
    if len(call.tools) > 1:
        conversation = conversation.with_user(call.prompts.render("choose_tool", tools=call.tools))
        names = tuple(tool.name for tool in call.tools)
        choosing = replace(call.sampling, choices=names, stop=())
        named = await engine.call(Sample(conversation, choosing), priority=priority)
        usage = named.usage
        if named.text not in names:  # cut before its end
            yield MessagePiece()
            yield MessageEnd("length", usage)
            return
        chosen, conversation = names.index(named.text), conversation.with_reply(named)
    tool = call.tools[chosen]
    conversation = conversation.with_user(call.prompts.render("call_tool", tool=tool))
    yield MessagePiece(calls=(CallPiece(0, call.id, tool.name),))
    items = engine.stream(Sample(conversation, call.sampling, tool.schema), priority=priority)
    async with aclosing(items):
        async for item in items:
            match item:
                case Completion():
                    whole = item.finish_reason == "stop"
                    if whole and not call.sampling.stop:  # arguments that are cut there need not fit
                        await hold(item.text, forms[chosen], threads)
                    ended = call.finish_reason if whole else relay_finish(item.finish_reason)
                    yield MessageEnd(ended, usage + item.usage)
                case Thought(text=text):
                    yield MessagePiece(thoughts=text)
                case str() if item:
                    yield MessagePiece(calls=(CallPiece(0, arguments=item),))
