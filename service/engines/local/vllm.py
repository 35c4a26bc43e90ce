"""The vLLM engine, in this process: one implementation for vLLM's GPU and CPU builds."""

import asyncio
import itertools
import json
import logging
import multiprocessing
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from copy import copy
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from service.engines.base import (
    PLAINLY,
    Call,
    CallHandler,
    Choice,
    Choose,
    Completion,
    JsonSchema,
    Likelihood,
    Piece,
    Reading,
    Sample,
    Sampling,
    Thought,
    Usage,
    Weigh,
    grammar,
)
from service.engines.conversation import Conversation
from service.engines.local.reasoning import Reader, Reasoning, parser_name
from service.engines.served import EngineMisconfigured
from service.engines.thoughts import Split, Thinking, find_requested_marks
from service.engines.tokenization import ChatTokenizer
from service.errors import EngineDead, InvalidRequest

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

log = logging.getLogger(__name__)

CPU_CONTEXT_TOKENS = 8192
"""The context on a CPU unless the settings name another: one batch must hold it whole (see _arguments)."""

MOST_LOGPROBS = 20
"""vLLM's default for how many of the most probable tokens it returns. With speculation it returns no others, and every
other token counts as impossible."""

NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({})
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM can be started with; smaller adapters fit in."""

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",  # no telemetry
    "VLLM_LOGGING_LEVEL": "ERROR",  # its warnings name choices that are made on purpose here
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",  # else one core of the machine computes nothing
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
    "NUMBA_THREADING_LAYER": "workqueue",  # else n-gram speculation leaves the model one core less
}


class VllmEngine(CallHandler):
    """An Engine on ``AsyncLLM``. Make one with ``start``; it lives in the event loop that made it."""

    def __init__(self, llm: "AsyncLLM", model: str, thinking: Thinking) -> None:
        self._llm = llm
        self._model = model
        self._lora: LoRARequest | None = None
        self._lora_ids = itertools.count(1)
        self.tokenizer = llm.get_tokenizer()
        name = llm.vllm_config.structured_outputs_config.reasoning_parser
        self._reasoning = Reasoning(name, self.tokenizer, llm.model_config, thinking) if name else None
        self._chat = ChatTokenizer(self.tokenizer, thinking, self._reasoning.marks if self._reasoning else None)
        self._context_tokens: int = llm.model_config.max_model_len
        self._speculates = llm.vllm_config.speculative_config is not None
        self._parsing = asyncio.Lock()

    @classmethod
    async def start(
        cls,
        model: str,
        name: str,
        arguments: Mapping[str, Any],
        adapters: Sequence[Path] = (),
        thinking: Thinking | None = None,
    ) -> "VllmEngine":
        """Load ``model`` (a folder or a hub name) and serve it as ``name``.

        ``adapters``: the folders of those that ``load_adapter`` may be asked for. ``arguments`` go to vLLM's
        ``AsyncEngineArgs`` as they are and win over the defaults here. Loading runs in a thread, so that the caller's
        event loop stays free. EngineMisconfigured where vLLM is not installed.
        """
        if find_spec("vllm") is None:
            raise EngineMisconfigured("vLLM is not installed: pip install 'redraft[server,gpu]', or set REDRAFT_ENGINE")
        for variable, value in ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        thinking = thinking or Thinking()
        return cls(
            await _load_in_thread(model, name, {**lora_arguments(adapters), **arguments}, thinking), name, thinking
        )

    async def load_adapter(self, name: str, folder: Path) -> "VllmEngine":
        """The same engine with a LoRA adapter, as the model ``name``.

        It shares the tokens, the queue and the processes, but no cached prefix, because an adapter's values differ.
        Raises what vLLM says of an adapter that cannot be loaded.
        """
        from vllm.lora.request import LoRARequest

        view = copy(self)
        view._model = name
        view._lora = LoRARequest(name, next(self._lora_ids), str(folder))
        with _translate_errors():
            await self._llm.add_lora(view._lora)
        return view

    async def close(self) -> None:
        """Stop the engine's processes within seconds and abort calls in progress.

        It does nothing for an adapter's engine, which is closed with its base.
        """
        if self._lora is not None:
            return
        if self._llm.output_handler is not None:
            self._llm.output_handler.cancel()  # else it reports the end of the processes as a failure
        await asyncio.to_thread(self._llm.shutdown, 5.0)
        # AsyncLLM's finalizer calls it again, and by then the interpreter may have taken its imports apart.
        self._llm.shutdown = lambda timeout=None: None

    @property
    def model(self) -> str:
        return self._model

    @property
    def backend(self) -> object:
        return self._llm

    @property
    def takes_images(self) -> bool:
        """False: prompts are token ids made here, and only a model's own processor could put images into them."""
        return False

    async def sample(self, sample: Sample, priority: int) -> Completion:
        from vllm.sampling_params import RequestOutputKind

        prompt = await self._prompt(sample)
        await self._take_turn_to_parse(sample.schema)
        params = self._parameters(sample, RequestOutputKind.FINAL_ONLY)
        output = await self._run_to_end(prompt.ids, params, priority, prompt.arguments)
        reply = output.outputs[0]
        reader = self._reader(sample.conversation, prompt, whole=True)
        reader.feed(reply.text, reply.token_ids)
        return self._completion(output, reader, reply.token_ids)[1]

    async def stream(
        self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY
    ) -> AsyncGenerator[Piece, None]:
        from vllm.sampling_params import RequestOutputKind

        prompt = await self._prompt(sample)
        await self._take_turn_to_parse(sample.schema)
        params = self._parameters(sample, RequestOutputKind.DELTA)
        params.stream_interval = reading.interval
        reply = _StreamedReply(self._reader(sample.conversation, prompt, whole=False))
        try:
            async with aclosing(self._outputs(prompt.ids, params, priority, prompt.arguments, reply.feed)) as outputs:
                most = min(sample.sampling.max_tokens, self._context_tokens - len(prompt.ids))
                async for output in outputs:
                    pieces = reply.feed(output)
                    reading.on_progress(len(reply.sampled) / most)
                    for piece in pieces:
                        yield piece
                    if output.finished:
                        rest, completion = self._completion(output, reply.reader, reply.sampled)
                        for piece in rest:
                            yield piece
                        reply.ended = True
                        yield completion
        finally:
            if cut := self._cut(reply):
                reading.on_cut(cut)

    async def choose(self, choose: Choose, priority: int) -> Choice:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(max_tokens=1, temperature=0.0, output_kind=RequestOutputKind.FINAL_ONLY)
        if self._speculates:
            params.logprobs = MOST_LOGPROBS
        else:
            params.logprob_token_ids = self._chat.option_ids(choose.options)
        ids = await self._fitting_ids(choose.conversation, choose.prefill, thinking=False)
        output = await self._run_to_end(ids, params, priority)
        [found] = output.outputs[0].logprobs or [{}]
        weights = {token: weight.logprob for token, weight in found.items()}
        return Choice(
            logprobs=self._chat.option_logprobs(choose.options, weights),
            usage=_usage(output, completion_tokens=1),
        )

    async def weigh(self, weigh: Weigh, priority: int) -> Likelihood:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        # The cache keeps no probabilities, so vLLM reads none of the prompt from it.
        params = SamplingParams(
            max_tokens=1, temperature=0.0, prompt_logprobs=0, output_kind=RequestOutputKind.FINAL_ONLY
        )
        ids = await self._fitting_ids(weigh.conversation, weigh.reply, thinking=False)
        output = await self._run_to_end(ids, params, priority)
        begin = len(self.prompt_ids(weigh.conversation, thinking=False))
        weighed = zip(ids[begin:], (output.prompt_logprobs or [])[begin:], strict=True)
        return Likelihood(
            logprobs=tuple(weights[token].logprob for token, weights in weighed),
            usage=_usage(output, completion_tokens=1),
        )

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        await self._fitting_ids(conversation, tokens=tokens)

    async def upper_bound(self, call: Call[Any]) -> Usage:
        match call:
            case Sample():
                ids, most = (await self._prompt(call)).ids, call.sampling.max_tokens
            case Choose():
                ids, most = await self._fitting_ids(call.conversation, call.prefill, thinking=False), 1
            case Weigh():
                ids, most = await self._fitting_ids(call.conversation, call.reply, thinking=False), 1
            case _:
                raise TypeError(f"{type(call).__name__} is not a kind of call")
        return Usage(1, len(ids), 0, min(most, self._context_tokens - len(ids)))

    async def check(self) -> None:
        with _translate_errors():
            await self._llm.check_health()

    def prompt_ids(self, conversation: Conversation, prefill: str = "", *, thinking: bool = True) -> list[int]:
        """The token ids that the model is given for a reply to ``conversation`` that begins with ``prefill``."""
        return self._chat.prompt_ids(conversation, prefill, thinking=thinking)

    async def _fitting_ids(
        self, conversation: Conversation, prefill: str = "", tokens: int = 1, *, thinking: bool = True
    ) -> list[int]:
        return await self._chat.fitting_ids(conversation, self._context_tokens, prefill, tokens, thinking=thinking)

    async def _prompt(self, sample: Sample) -> "_Prompt":
        """The prompt. A grammar begins after the thoughts, but only thoughts that the prompt opens are sure to end."""
        thinking = sample.sampling.thinking
        structured = sample.schema is not None or bool(sample.sampling.choices)
        opens = self._chat.habit.opening == "open"
        if structured:
            thinking = thinking and opens and self._reasoning is not None
        ids = await self._fitting_ids(sample.conversation, thinking=thinking)
        arguments = self._reasoning.request_arguments(ids) if structured and self._reasoning else {}
        return _Prompt(ids, opened=thinking and opens, direct=not thinking, arguments=arguments)

    def _reader(self, conversation: Conversation, prompt: "_Prompt", *, whole: bool) -> Reader:
        plain = self._chat.habit.splitter(find_requested_marks(conversation), "direct" if prompt.direct else "free")
        if self._reasoning is None:
            return plain
        return self._reasoning.reader(prompt.ids, prompt.opened, plain, whole=whole)

    async def _take_turn_to_parse(self, schema: JsonSchema | None) -> None:
        """vLLM parses grammars on the event loop, for milliseconds each: let other work run between them."""
        if schema is not None:
            async with self._parsing:
                await asyncio.sleep(0)

    async def _outputs(
        self,
        ids: list[int],
        params: "SamplingParams",
        priority: int,
        arguments: Mapping[str, Any] = NO_ARGUMENTS,
        on_abort: "Callable[[RequestOutput], object]" = lambda _: None,
    ) -> "AsyncGenerator[RequestOutput, None]":
        """A request's outputs, up to the finished one.

        ``on_abort``: given what had been sampled and not yielded, if the request is aborted. That is why this does what
        ``AsyncLLM.generate`` does, which drops it.
        """
        from vllm.inputs.engine import tokens_input

        with _translate_errors():
            queue = await self._llm.add_request(
                uuid4().hex, tokens_input(ids), params, lora_request=self._lora, priority=priority, **arguments
            )
            finished = False
            try:
                while not finished:
                    output = queue.get_nowait() or await queue.get()
                    finished = output.finished
                    yield output
            except (asyncio.CancelledError, GeneratorExit):
                if not finished:
                    await self._llm.abort(queue.request_id, internal=True)
                    if rest := queue.get_nowait():
                        on_abort(rest)
                raise
            finally:
                queue.close()

    async def _run_to_end(
        self, ids: list[int], params: "SamplingParams", priority: int, arguments: Mapping[str, Any] = NO_ARGUMENTS
    ) -> "RequestOutput":
        """The only output of a request whose outputs are FINAL_ONLY."""
        async with aclosing(self._outputs(ids, params, priority, arguments)) as outputs:
            return await anext(outputs)

    def _completion(
        self, output: "RequestOutput", reader: Reader, sampled: Sequence[int]
    ) -> tuple[list[str | Thought], Completion]:
        """The last pieces of a reply that was read, and the whole."""
        reply = output.outputs[0]
        last, split = reader.end("length" if reply.finish_reason == "length" else "stop")
        usage = _usage(output, len(sampled), self._thought_tokens(split, sampled))
        ids = None
        if not split.thoughts:
            ids = self._chat.reply_ids(sampled, stopped_at_text=isinstance(reply.stop_reason, str))
        return last, Completion(split.text, split.finish_reason, usage, ids, split.thoughts)

    def _cut(self, reply: "_StreamedReply") -> Completion | None:
        """A reply that was cut, as far as it came; None if it was not, or had not begun."""
        if reply.ended or reply.last is None:
            return None
        _, split = reply.reader.end("length")
        usage = _usage(reply.last, len(reply.sampled), self._thought_tokens(split, reply.sampled))
        ids = None if split.thoughts else self._chat.reply_ids(reply.sampled, stopped_at_text=False)
        return Completion(split.text, "length", usage, ids, split.thoughts)

    def _thought_tokens(self, split: Split, sampled: Sequence[int]) -> int:
        if not split.thoughts:
            return 0
        if self._reasoning is not None and self._reasoning.marks is None:
            return self._reasoning.count(sampled)
        return self._chat.thought_tokens(sampled, split.text)

    def _parameters(self, sample: Sample, output_kind: Any) -> "SamplingParams":
        params = _parameters(sample.sampling, sample.schema, output_kind)
        if self._chat.hides_marks or (self._reasoning is not None and self._reasoning.raw):
            params.skip_special_tokens = False
        return params


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A prompt. ``opened``: it begins the reply's thoughts. ``direct``: it asks for a reply without thoughts.
    ``arguments``: further arguments of the engine's request."""

    ids: list[int]
    opened: bool
    direct: bool
    arguments: Mapping[str, Any]


@dataclass
class _StreamedReply:
    """What has been read of a reply. ``last``: the request's newest output."""

    reader: Reader
    sampled: list[int] = field(default_factory=list)
    last: "RequestOutput | None" = None
    ended: bool = False

    def feed(self, output: "RequestOutput") -> list[str | Thought]:
        self.last = output
        reply = output.outputs[0]
        self.sampled += reply.token_ids
        return self.reader.feed(reply.text, reply.token_ids)


async def _load_in_thread(model: str, name: str, arguments: Mapping[str, Any], thinking: Thinking) -> "AsyncLLM":
    """Load in a thread. On cancellation, end the processes that the thread has started and wait for it: a thread cannot
    be cancelled, but it fails at once without its processes."""
    loading = asyncio.ensure_future(asyncio.to_thread(_load, model, name, arguments, thinking))
    try:
        return await asyncio.shield(loading)
    except asyncio.CancelledError:
        while not loading.done():
            for process in multiprocessing.active_children():
                process.terminate()
            await asyncio.wait([loading], timeout=0.1)
        if loading.exception() is None:
            await asyncio.to_thread(loading.result().shutdown, 5.0)
        raise


def _load(model: str, name: str, arguments: Mapping[str, Any], thinking: Thinking) -> "AsyncLLM":
    if Path(model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # else a start without a network hangs on look-ups
    begun = time.perf_counter()
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    log.info("vllm imported", extra={"seconds": round(time.perf_counter() - begun, 1)})
    # The default context would halve the batch: it is meant for offline use.
    made = _arguments(model, name, arguments)
    named = {"reasoning_parser": parser_name(made, thinking)}
    made.structured_outputs_config = {**named, **made.structured_outputs_config}
    return AsyncLLM.from_engine_args(made, UsageContext.OPENAI_API_SERVER)


def _arguments(model: str, name: str, arguments: Mapping[str, Any]) -> "AsyncEngineArgs":
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform

    chosen: dict[str, Any] = {
        "model": model,
        "served_model_name": name,
        "scheduling_policy": "priority",
        "use_tqdm_on_load": False,
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    if current_platform.is_cpu():
        length = AsyncEngineArgs(**{**chosen, **arguments}).create_model_config().max_model_len
        if "max_model_len" not in arguments:
            length = min(length, CPU_CONTEXT_TOKENS)
        chosen |= {
            "max_model_len": length,
            "max_num_seqs": 64,  # more at once are slower together
            "block_size": 32,  # the smallest: prefix caching works in whole blocks
            "enforce_eager": True,  # ready 50 s sooner, and the same speed under load
            # A chunked prefill of a request with its own seed kills the CPU engine, so a batch takes any
            # prompt whole. (A GPU engine has no such fault and keeps vLLM's own choices.)
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": length,
        }
    return AsyncEngineArgs(**{**chosen, **arguments})


def lora_arguments(adapters: Sequence[Path]) -> Mapping[str, Any]:
    """What the engine must know about its adapters at the start: their number and the largest rank."""
    if not adapters:
        return {}
    ranks = [json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["r"] for folder in adapters]
    fitting = [rank for rank in LORA_RANKS if rank >= max(ranks)] or [max(ranks)]
    return {"enable_lora": True, "max_loras": len(adapters), "max_lora_rank": fitting[0]}


def _parameters(sampling: Sampling, schema: JsonSchema | None, output_kind: Any) -> "SamplingParams":
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    structured = None
    if schema is not None or sampling.choices:
        structured = StructuredOutputsParams(
            grammar=None if schema is None else grammar(schema), choice=list(sampling.choices) or None
        )
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        stop=list(sampling.stop),
        seed=sampling.seed,
        structured_outputs=structured,
        output_kind=output_kind,
    )


def _usage(output: "RequestOutput", completion_tokens: int, reasoning_tokens: int = 0) -> Usage:
    prompt_tokens, cached_tokens = len(output.prompt_token_ids or ()), output.num_cached_tokens or 0
    return Usage(1, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens)


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise the engine's errors as Redraft's."""
    from vllm.exceptions import VLLMClientError
    from vllm.v1.engine.exceptions import EngineDeadError

    try:
        yield
    except EngineDeadError as error:
        raise EngineDead("the engine's process has ended") from error
    except VLLMClientError as error:
        raise InvalidRequest(str(error)) from error
