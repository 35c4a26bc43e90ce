"""Programs without a loop: generate texts, critique a text that the caller has, and hand on a chat with tools."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import replace

from service.concurrency import gather
from service.engines.base import Completion, Engine, Sample, Thought, Usage
from service.engines.conversation import Conversation
from service.engines.relay import MessageEnd, MessagePiece, Relay, join_pieces, require_relay
from service.engines.siblings import fan_out
from service.errors import DeadlineExceeded, PromptTooLong
from service.refinement import telemetry
from service.refinement.accounting import Emit, Ledger, MeteredEngine
from service.refinement.candidate import Assessment, Candidate
from service.refinement.events import Critiqued, Delta, Event, Generated, ReasoningDelta, Relayed, Reviewed
from service.refinement.forced import write_call
from service.refinement.held import hold
from service.refinement.program import Budget, Generate, Review, ToolChat
from service.refinement.roles import Roles
from service.refinement.steps import EngineSteps
from service.refinement.stream import events_of


def generate(generation: Generate, roles: Roles) -> AsyncGenerator[Event, None]:
    """Answer every request of a generation at once; the last event is Generated.

    Raises DeadlineExceeded when the time runs out before all answers are complete.
    """

    async def work(emit: Emit) -> None:
        with telemetry.program("generate", generation):
            await _generate(generation, roles, emit)

    return events_of(work)


async def _generate(generation: Generate, roles: Roles, emit: Emit) -> None:
    ledger = Ledger(generation.budget, emit, generation.arrival, generation.lane)
    writer = MeteredEngine(roles.writer, "draft", ledger)
    answer = _streamed if generation.stream else _complete

    def naming(index: int) -> AbstractContextManager[None]:
        return _too_long_by("prompt" if len(generation.requests) == 1 else f"prompt.{index}")

    async def answered(index: int, request: Conversation) -> Sequence[Completion]:
        with naming(index):
            completions = await answer(generation, writer, emit, index, request)
        if not generation.sampling.stop:  # a text that is cut there need not fit
            for completion in completions:
                if completion.finish_reason == "stop":
                    await hold(completion.text, generation.form, generation.threads)
        return completions

    for index, request in enumerate(generation.requests):
        with naming(index):
            await writer.fit(request)
    async with _deadline(generation.budget):
        completions = await gather(answered(index, request) for index, request in enumerate(generation.requests))
    emit(Generated(generation.id, writer.model, completions, ledger.usage))


async def _complete(
    generation: Generate, writer: MeteredEngine, emit: Emit, prompt_index: int, request: Conversation
) -> Sequence[Completion]:
    sample = Sample(request, generation.sampling, generation.schema)
    completions = await writer.sample_siblings(sample, generation.n)
    if (form := generation.form) is None:
        return completions
    return [replace(completion, text=form.unwrap(completion.text)) for completion in completions]


async def _streamed(
    generation: Generate, writer: MeteredEngine, emit: Emit, prompt_index: int, request: Conversation
) -> Sequence[Completion]:
    async def stream(index: int, sibling: Sample) -> Completion:
        async with aclosing(writer.stream(sibling)) as items:
            async for item in items:
                if isinstance(item, Completion):
                    return item
                if isinstance(item, Thought):
                    emit(ReasoningDelta(prompt_index, index, item.text))
                else:
                    emit(Delta(prompt_index, index, item))
        raise RuntimeError("the engine ended a stream without its completion")

    return await fan_out(Sample(request, generation.sampling, generation.schema), generation.n, stream)


def review(review: Review, roles: Roles) -> AsyncGenerator[Event, None]:
    """Evaluate a candidate and, if asked, say what should change; the last event is Reviewed.

    Raises DeadlineExceeded when the time runs out before that.
    """

    async def work(emit: Emit) -> None:
        with telemetry.program("critique", review):
            await _review(review, roles, emit)

    return events_of(work)


async def _review(review: Review, roles: Roles, emit: Emit) -> None:
    ledger = Ledger(review.budget, emit, review.arrival, review.lane)
    steps = EngineSteps(review, roles, ledger, emit)
    candidate = Candidate("c0", 0, "draft", None, review.request, Completion(review.candidate, "stop", Usage()))
    known: list[Assessment] = []
    critique = None
    await steps.fit()
    async with _deadline(review.budget):
        await steps.assess(candidate.text, known.append)
        if review.feedback:
            with _too_long_by("candidate"):
                critique = await steps.critique(candidate, known[-1], review.principles)
            emit(Critiqued(0, critique))
    done = Reviewed(review.id, roles.models, known[-1], critique, ledger.usage)
    telemetry.reviewed(done)
    emit(done)


def relay(chat: ToolChat, roles: Roles) -> AsyncGenerator[Event, None]:
    """Hand a chat with tools on to the writer; the last event is Relayed.

    Raises InvalidRequest where the writer's engine has no tools, and DeadlineExceeded when the time runs out.
    """

    async def work(emit: Emit) -> None:
        with telemetry.program("generate", chat):
            await _relay(chat, roles, emit)

    return events_of(work)


async def _relay(chat: ToolChat, roles: Roles, emit: Emit) -> None:
    ledger = Ledger(chat.budget, emit, chat.arrival, chat.lane)
    started = time.perf_counter()
    pieces: list[MessagePiece] = []
    end = None
    items = _message(chat, roles.writer, ledger.priority)
    with telemetry.call("draft", roles.writer.model, 1):
        async with _deadline(chat.budget), aclosing(items):
            async for item in items:
                if isinstance(item, MessageEnd):
                    end = item
                else:
                    pieces.append(item)
                    emit(item)
        if end is None:
            raise RuntimeError("the engine ended a message without saying how")
        telemetry.called(end.usage, ())
    whole = join_pieces(pieces)
    if end.finish_reason == "stop" and not chat.asked.get("stop") and not whole.calls:
        await hold(whole.content or "", chat.form, chat.threads)
    ledger.record("draft", end.usage, time.perf_counter() - started, roles.writer.model)
    emit(Relayed(chat.id, roles.writer.model, whole, end.finish_reason, ledger.usage))


def _message(chat: ToolChat, writer: Engine, priority: int) -> AsyncGenerator[MessagePiece | MessageEnd, None]:
    if chat.forced is not None and not isinstance(writer, Relay):
        return write_call(chat.forced, writer, threads=chat.threads, priority=priority)
    return require_relay(writer).relay(chat.asked, stream=chat.stream, priority=priority)


@asynccontextmanager
async def _deadline(budget: Budget) -> AsyncGenerator[None, None]:
    try:
        async with asyncio.timeout_at(budget.deadline):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded("the time ran out before the answer was complete") from error


@contextmanager
def _too_long_by(field: str) -> Iterator[None]:
    """Let a PromptTooLong name the part of the request that is at fault."""
    try:
        yield
    except PromptTooLong as error:
        raise PromptTooLong(error.prompt_tokens, error.context_tokens, field) from error
