"""Programs without a loop: generate texts, critique a text that the caller has, and hand on a chat with tools."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import replace

from service.concurrency import gather
from service.engines.base import Completion, Engine, FinishReason, Sample, Thought, Usage
from service.engines.conversation import Conversation
from service.engines.relay import MessageEnd, MessagePiece, Relay, join_pieces, require_relay
from service.engines.siblings import fan_out
from service.engines.thoughts import str_of
from service.errors import Cancelled, DeadlineExceeded, EngineUnavailable, PromptTooLong
from service.refinement import telemetry
from service.refinement.accounting import Emit, Ledger, MeteredEngine, TimeIsUp
from service.refinement.candidate import Assessment, Candidate
from service.refinement.events import Critiqued, Delta, Event, Generated, ReasoningDelta, Relayed, Reviewed
from service.refinement.forced import write_call
from service.refinement.held import hold
from service.refinement.landing import Landing, Rules
from service.refinement.program import Budget, Generate, Review, ToolChat
from service.refinement.roles import Roles
from service.refinement.steps import EngineSteps
from service.refinement.stream import events_of
from service.refinement.writing import PIECE_TOKENS, write_text


def generate(generation: Generate, roles: Roles) -> AsyncGenerator[Event, None]:
    """Answer every request of a generation at once; the last event is Generated.

    Texts that the deadline or a failure of the engine cuts are given as far as they came. DeadlineExceeded, or the
    failure, where that is nowhere.
    """

    async def work(emit: Emit) -> None:
        with telemetry.program("generate", generation):
            await _generate(generation, roles, emit)

    return events_of(work)


async def _generate(generation: Generate, roles: Roles, emit: Emit) -> None:
    ledger = Ledger(generation.budget, emit, generation.arrival, generation.lane)
    writer = MeteredEngine(roles.writer, "draft", ledger)
    answers = _Answers(generation, writer, emit)

    def naming(index: int) -> AbstractContextManager[None]:
        return _too_long_by("prompt" if len(generation.requests) == 1 else f"prompt.{index}")

    async def answer(index: int, request: Conversation) -> Sequence[Completion]:
        with naming(index):
            return await answers.to(index, request)

    for index, request in enumerate(generation.requests):
        with naming(index):
            await writer.fit(request)
    completions = await gather(answer(index, request) for index, request in enumerate(generation.requests))
    answers.check()
    emit(Generated(generation.id, writer.model, completions, ledger.usage))


class _Answers:
    """The answers of a generation. One that is cut is kept as far as it came, and ends no other."""

    def __init__(self, generation: Generate, writer: MeteredEngine, emit: Emit) -> None:
        self._generation = generation
        self._writer = writer
        self._emit = emit
        self._written = 0
        self._failure: Exception | None = None

    async def to(self, prompt_index: int, request: Conversation) -> Sequence[Completion]:
        """The answers to one prompt, in order; those that could not begin are empty."""
        generation = self._generation

        async def write(index: int, sibling: Sample) -> Completion:
            return await self._write(prompt_index, index, sibling)

        sample = Sample(request, generation.sampling, generation.schema)
        completions = await fan_out(sample, generation.n, write)
        if not generation.sampling.stop:  # a text that is cut there need not fit
            for completion in completions:
                if completion.finish_reason == "stop":
                    await hold(completion.text, generation.form, generation.threads)
        return completions

    def check(self) -> None:
        """Raise what kept the answers from beginning, if none has begun."""
        if self._failure is not None and not self._written:
            raise self._failure

    async def _write(self, prompt_index: int, index: int, sample: Sample) -> Completion:
        generation = self._generation

        def show(piece: str | Thought) -> None:
            delta = ReasoningDelta if isinstance(piece, Thought) else Delta
            self._emit(delta(prompt_index, index, str_of(piece)))

        kept: list[Completion] = []
        ended_by: FinishReason = "deadline"
        landing = Landing(Rules(())) if generation.sampling.landing else None
        watchers = [landing] if landing is not None else []
        shown = show if generation.stream else None
        tokens = 1 if generation.stream else PIECE_TOKENS
        try:
            await write_text(self._writer, sample, kept.append, shown, watchers, piece_tokens=tokens)
        except TimeIsUp:
            self._failure = DeadlineExceeded("the time ran out before anything was written")
        except EngineUnavailable as error:
            self._failure, ended_by = error, "cancelled" if isinstance(error, Cancelled) else "engine_failed"
        self._written += len(kept)
        completion = kept[0] if kept else Completion("", ended_by, Usage())
        if landing is not None and not generation.stream:
            completion = landing.trim(completion)
        if generation.form is None or generation.stream:
            return completion
        return replace(completion, text=generation.form.unwrap(completion.text))


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
    done = Reviewed(review.id, roles.models, review.judge_trust, known[-1], critique, ledger.usage)
    telemetry.reviewed(done)
    emit(done)


def relay(chat: ToolChat, roles: Roles) -> AsyncGenerator[Event, None]:
    """Hand a chat with tools on to the writer; the last event is Relayed.

    A message that the deadline or a failure cuts is given as far as it came, with ``length``. Before it has begun these
    are errors, and so is a failure in a tool call. InvalidRequest where the writer's engine has no tools.
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
    with telemetry.call("draft", roles.writer.model):
        try:
            async with _deadline(chat.budget), aclosing(items):
                async for item in items:
                    if isinstance(item, MessageEnd):
                        end = item
                    else:
                        pieces.append(item)
                        emit(item)
        except (DeadlineExceeded, EngineUnavailable) as error:
            broken = isinstance(error, EngineUnavailable) and join_pieces(pieces).calls
            if not pieces or broken:
                raise
            end = MessageEnd("length", Usage(calls=1, completion_tokens=len(pieces)))  # a piece is about a token
        if end is None:
            raise RuntimeError("the engine ended a message without saying how")
        telemetry.called(end.usage)
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
    except (TimeIsUp, TimeoutError) as error:
        raise DeadlineExceeded("the time ran out before the answer was complete") from error


@contextmanager
def _too_long_by(field: str) -> Iterator[None]:
    """Let a PromptTooLong name the part of the request that is at fault."""
    try:
        yield
    except PromptTooLong as error:
        raise PromptTooLong(error.prompt_tokens, error.context_tokens, field) from error
