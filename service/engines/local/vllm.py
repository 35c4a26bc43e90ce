"""The vLLM engine, in this process: one implementation for vLLM's GPU and CPU builds."""

import asyncio
import itertools
import multiprocessing
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
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
    Likelihood,
    Piece,
    Reading,
    Sample,
    Sampling,
    Thought,
    Usage,
    Weigh,
    cancelled_at_cost,
    require_grammars,
)
from service.engines.conversation import Conversation
from service.engines.decoding import Grammars, begin_with, tokens_of
from service.engines.local.loading import GUIDANCE, load_in_thread, lora_arguments
from service.engines.local.pictures import Pictures, with_template
from service.engines.local.reasoning import Reader, Reasoning
from service.engines.served import AdapterRoom, AdapterUnusable, EngineMisconfigured, ServedEngine
from service.engines.thoughts import Split, Thinking, find_requested_marks
from service.engines.tokenization import ChatTokenizer
from service.errors import EngineDead, EngineUnavailable, InvalidRequest
from service.grammar.ebnf import to_ebnf
from service.leash import Leash

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.output_processor import RequestOutputCollector

MOST_LOGPROBS = 20
"""vLLM's default for how many of the most probable tokens it returns. With speculation it returns no others, and every
other token counts as impossible."""

NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({})
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
        structured = llm.vllm_config.structured_outputs_config
        self.takes_grammars = structured.backend == GUIDANCE
        name = structured.reasoning_parser
        self._reasoning = Reasoning(name, self.tokenizer, llm.model_config, thinking) if name else None
        stated = with_template(thinking, self.tokenizer, llm.model_config)
        self._chat = ChatTokenizer(self.tokenizer, stated, self._reasoning.marks if self._reasoning else None)
        self._pictures: Pictures | None = None
        self._context_tokens: int = llm.model_config.max_model_len
        self._speculates = llm.vllm_config.speculative_config is not None
        vocabulary = llm.model_config.get_vocab_size()
        self._grammars = Grammars(lambda: tokens_of(self.tokenizer, vocabulary))
        self._parsing = asyncio.Lock()
        self._leash: Leash | None = None

    @classmethod
    async def start(
        cls,
        model: str,
        name: str,
        arguments: Mapping[str, Any],
        adapters: Sequence[Path] = (),
        thinking: Thinking | None = None,
        room: AdapterRoom | None = None,
    ) -> "VllmEngine":
        """Load ``model`` (a folder or a hub name) and serve it as ``name``.

        ``adapters``: the folders of those that ``load_adapter`` may be asked for. ``room``: for others, which need not
        exist yet. ``arguments`` go to vLLM's ``AsyncEngineArgs`` as they are and win over the defaults here. Loading
        runs in a thread, so that the caller's event loop stays free. EngineMisconfigured where vLLM is not installed.
        """
        if find_spec("vllm") is None:
            raise EngineMisconfigured("vLLM is not installed: pip install 'redraft[server,gpu]', or set REDRAFT_ENGINE")
        for variable, value in ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        thinking = thinking or Thinking()
        others = set(multiprocessing.active_children())
        llm = await load_in_thread(model, name, {**lora_arguments(adapters, room), **arguments}, thinking)
        engine = cls(llm, name, thinking)
        try:
            started = set(multiprocessing.active_children()) - others
            # They would live on, with the memory of the model.
            engine._leash = Leash(process.pid for process in started if process.pid is not None)
            engine._pictures = await Pictures.find(llm, engine._chat)
        except BaseException:
            await engine.close()
            raise
        return engine

    async def load_adapter(self, name: str, folder: Path) -> "VllmEngine":
        """The same engine with a LoRA adapter, as the model ``name``.

        It shares the tokens, the queue and the processes, but no cached prefix, because an adapter's values differ.
        Adapters may be loaded while calls are in progress, as many as the engine was started for.

        Raises AdapterUnusable, with what vLLM says of it, and EngineDead.
        """
        from vllm.lora.request import LoRARequest

        view = copy(self)
        view._model = name
        view._lora = LoRARequest(name, next(self._lora_ids), str(folder))
        try:
            with _translate_errors():
                await self._llm.add_lora(view._lora)
        except EngineDead:
            raise
        except Exception as error:  # vLLM passes on whatever its worker met
            await self.drop_adapter(view)
            raise AdapterUnusable(f"vLLM cannot load the adapter in {folder}: {error}") from error
        return view

    async def drop_adapter(self, adapter: ServedEngine) -> None:
        """Free the slot of an adapter that no call uses any more. vLLM would do so only once all slots are taken, also
        the one that has to stay empty (see loading.lora_arguments)."""
        if isinstance(adapter, VllmEngine) and adapter._lora is not None:
            with _translate_errors():
                await self._llm.remove_lora(adapter._lora.lora_int_id)

    async def close(self) -> None:
        """Stop the engine's processes within seconds and abort calls in progress.

        It does nothing for an adapter's engine, which is closed with its base.
        """
        if self._lora is not None:
            return
        if self._llm.output_handler is not None:
            self._llm.output_handler.cancel()  # else it reports the end of the processes as a failure
        await asyncio.to_thread(self._llm.shutdown, 5.0)
        if self._leash is not None:
            self._leash.release()
            self._leash = None
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
        return self._pictures is not None

    async def sample(self, sample: Sample, priority: int) -> Completion:
        from vllm.sampling_params import RequestOutputKind

        prompt = await self._prompt(sample)
        params = self._parameters(sample.sampling, prompt, RequestOutputKind.FINAL_ONLY)
        output = await self._run_to_end(sample.conversation, prompt.ids, params, priority, prompt.arguments)
        reply = output.outputs[0]
        reader = self._reader(sample.conversation, prompt, whole=True)
        reader.feed(prompt.given + reply.text, reply.token_ids)
        return self._completion(output, prompt, reader, reply.token_ids)[1]

    async def stream(
        self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY
    ) -> AsyncGenerator[Piece, None]:
        from vllm.sampling_params import RequestOutputKind

        prompt = await self._prompt(sample)
        params = self._parameters(sample.sampling, prompt, RequestOutputKind.DELTA)
        params.stream_interval = reading.interval
        reply = _StreamedReply(self._reader(sample.conversation, prompt, whole=False))
        for piece in reply.reader.feed(prompt.given):
            yield piece
        requested = self._outputs(sample.conversation, prompt.ids, params, priority, prompt.arguments, reply.feed)
        try:
            async with aclosing(requested) as outputs:
                most = min(sample.sampling.max_tokens, self._context_tokens - len(prompt.ids))
                async for output in outputs:
                    pieces = reply.feed(output)
                    reading.on_progress(len(reply.sampled) / most)
                    for piece in pieces:
                        yield piece
                    if output.finished:
                        rest, reply.whole = self._completion(output, prompt, reply.reader, reply.sampled)
                        for piece in rest:
                            yield piece
                        reply.delivered = True
                        yield reply.whole
        finally:
            if cut := self._cut(prompt, reply):
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
        output = await self._run_to_end(choose.conversation, ids, params, priority)
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
            max_tokens=1, temperature=0.0, prompt_logprobs=1, output_kind=RequestOutputKind.FINAL_ONLY
        )
        ids = await self._fitting_ids(weigh.conversation, weigh.reply, thinking=False)
        output = await self._run_to_end(weigh.conversation, ids, params, priority)
        begin = len(self.prompt_ids(weigh.conversation, thinking=False))
        weights = [
            {token: weight.logprob for token, weight in (found or {}).items()}
            for found in (output.prompt_logprobs or [])[begin:]
        ]
        return Likelihood(
            tokens=self._chat.weighed(ids[begin:], weights),
            usage=_usage(output, completion_tokens=1),
        )

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        await self._fitting_ids(conversation, tokens=tokens)

    async def upper_bound(self, call: Call[Any]) -> Usage:
        prompt = (await self._prompt(call)).ids if isinstance(call, Sample) else None
        return await self._chat.upper_bound(call, self._context_tokens, prompt)

    async def prove(self, grammar: str) -> None:
        require_grammars(self)
        await self._grammars.prove(grammar)

    async def check(self) -> None:
        with _translate_errors():
            await self._llm.check_health()

    def prompt_ids(self, conversation: Conversation, prefill: str = "", *, thinking: bool = True) -> list[int]:
        """The token ids that the model is given for a reply to ``conversation`` that begins with ``prefill``."""
        return self._chat.prompt_ids(conversation, prefill, thinking=thinking)

    async def _fitting_ids(
        self, conversation: Conversation, prefill: str = "", tokens: int = 1, *, thinking: bool = True
    ) -> list[int]:
        if self._pictures is not None:
            await self._pictures.place(conversation)
        return await self._chat.fitting_ids(conversation, self._context_tokens, prefill, tokens, thinking=thinking)

    async def _prompt(self, sample: Sample) -> "_Prompt":
        """The prompt. A grammar begins after the thoughts, but only thoughts that the prompt opens are sure to end."""
        if sample.grammar is not None or sample.given:
            require_grammars(self)
        form, given, thinking = sample.form, sample.given, sample.sampling.thinking
        opens = self._chat.habit.opening == "open"
        if form is not None or given:
            thinking = thinking and opens and self._reasoning is not None
        if given and thinking:  # the thoughts come first, so it cannot be in the prompt
            form, given = begin_with(given, form), ""
        ids = await self._fitting_ids(sample.conversation, given, thinking=thinking)
        arguments = self._reasoning.request_arguments(ids) if form is not None and self._reasoning else {}
        if form is not None:
            if self.takes_grammars:
                await self._grammars.prove(form)
            await self._take_turn_to_parse()
        return _Prompt(ids, opened=thinking and opens, direct=not thinking, arguments=arguments, given=given, form=form)

    def _reader(self, conversation: Conversation, prompt: "_Prompt", *, whole: bool) -> Reader:
        plain = self._chat.habit.splitter(find_requested_marks(conversation), "direct" if prompt.direct else "free")
        if self._reasoning is None:
            return plain
        return self._reasoning.reader(prompt.ids, prompt.opened, plain, whole=whole)

    async def _take_turn_to_parse(self) -> None:
        """vLLM parses grammars on the event loop, for milliseconds each: let other work run between them."""
        async with self._parsing:
            await asyncio.sleep(0)

    async def _outputs(
        self,
        conversation: Conversation,
        ids: list[int],
        params: "SamplingParams",
        priority: int,
        arguments: Mapping[str, Any] = NO_ARGUMENTS,
        on_abort: "Callable[[RequestOutput], object]" = lambda _: None,
    ) -> "AsyncGenerator[RequestOutput, None]":
        """A request's outputs, up to the finished one. ``ids``: the conversation's, and how the reply begins.

        ``on_abort``: given what had been sampled and not yielded, if the request is aborted. That is why this does what
        ``AsyncLLM.generate`` does, which drops it.
        """
        with _translate_errors():
            queue = await self._send(conversation, ids, params, lora_request=self._lora, priority=priority, **arguments)
            finished = False
            try:
                while not finished:
                    output = queue.get_nowait() or await queue.get()
                    finished = output.finished
                    if output.outputs[0].finish_reason == "error":
                        raise EngineUnavailable("the engine could not begin with a request")
                    yield output
            except (asyncio.CancelledError, GeneratorExit):
                if not finished:
                    await self._llm.abort(queue.request_id, internal=True)
                    if rest := queue.get_nowait():
                        on_abort(rest)
                raise
            finally:
                queue.close()

    async def _send(
        self, conversation: Conversation, ids: list[int], params: "SamplingParams", **arguments: Any
    ) -> "RequestOutputCollector":
        from vllm.inputs.engine import tokens_input

        if self._pictures is not None and (shown := await self._pictures.prompt(conversation, ids)):
            with self._pictures.lending(shown):
                return await self._llm.add_request(uuid4().hex, shown, params, **arguments)
        return await self._llm.add_request(uuid4().hex, tokens_input(ids), params, **arguments)

    async def _run_to_end(
        self,
        conversation: Conversation,
        ids: list[int],
        params: "SamplingParams",
        priority: int,
        arguments: Mapping[str, Any] = NO_ARGUMENTS,
    ) -> "RequestOutput":
        """The only output of a request whose outputs are FINAL_ONLY."""
        unread: list[RequestOutput] = []
        requested = self._outputs(conversation, ids, params, priority, arguments, unread.append)
        try:
            async with aclosing(requested) as outputs:
                return await anext(outputs)
        except asyncio.CancelledError:
            if unread and (sampled := unread[0].outputs[0].token_ids):
                raise cancelled_at_cost(_usage(unread[0], len(sampled))) from None
            raise

    def _completion(
        self, output: "RequestOutput", prompt: "_Prompt", reader: Reader, sampled: Sequence[int]
    ) -> tuple[list[str | Thought], Completion]:
        """The last pieces of a reply that was read, and the whole."""
        reply = output.outputs[0]
        stopped_at_text = isinstance(reply.stop_reason, str)
        last, split = reader.end("length" if reply.finish_reason == "length" else "stop")
        usage = _usage(output, len(sampled), self._thought_tokens(split, sampled))
        ids = None if split.thoughts else self._chat.reply_ids(sampled, stopped_at_text=stopped_at_text)
        breaks = False
        if prompt.form is not None and not stopped_at_text and self.takes_grammars:
            written = ids if ids is not None else split.text.removeprefix(prompt.given)
            breaks = self._grammars.breaks(prompt.form, written, ended=split.finish_reason == "stop")
        ids = self._with_given(prompt, ids)
        return last, Completion(split.text, split.finish_reason, usage, ids, split.thoughts, breaks)

    def _with_given(self, prompt: "_Prompt", ids: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """The ids of the whole reply, of which ``ids`` were sampled."""
        return ids if ids is None or not prompt.given else (*self._chat.encode(prompt.given), *ids)

    def _cut(self, prompt: "_Prompt", reply: "_StreamedReply") -> Completion | None:
        """A reply that was cut, as far as it came; None if it was not, or had not begun.

        vLLM samples the first token in the step that ends the prompt, and counts the prompt then. An aborted request
        has a last output even if it never came to that step.
        """
        if reply.delivered or reply.last is None or not reply.sampled:
            return None
        if reply.whole is not None:  # left while its last pieces were read
            return replace(reply.whole, finish_reason="length")
        _, split = reply.reader.end("length")
        usage = _usage(reply.last, len(reply.sampled), self._thought_tokens(split, reply.sampled))
        ids = None if split.thoughts else self._chat.reply_ids(reply.sampled, stopped_at_text=False)
        return Completion(split.text, "length", usage, self._with_given(prompt, ids), split.thoughts)

    def _thought_tokens(self, split: Split, sampled: Sequence[int]) -> int:
        if not split.thoughts:
            return 0
        if self._reasoning is not None and self._reasoning.marks is None:
            return self._reasoning.count(sampled)
        return self._chat.thought_tokens(sampled, split.text)

    def _parameters(self, sampling: Sampling, prompt: "_Prompt", output_kind: Any) -> "SamplingParams":
        form = prompt.form
        if form is not None and not self.takes_grammars:
            form = to_ebnf(form)
        params = _parameters(sampling, form, output_kind)
        if self._chat.hides_marks or (self._reasoning is not None and self._reasoning.raw):
            params.skip_special_tokens = False
        return params


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A prompt. ``opened``: it begins the reply's thoughts. ``direct``: it asks for a reply without thoughts.
    ``arguments``: further arguments of the engine's request. ``given``: the beginning of the reply that is in ``ids``.
    ``form``: the grammar of what is sampled, after the thoughts."""

    ids: list[int]
    opened: bool
    direct: bool
    arguments: Mapping[str, Any]
    given: str
    form: str | None


@dataclass
class _StreamedReply:
    """What has been read of a reply. ``last``: the request's newest output. ``whole``: the reply, once it has ended;
    ``delivered`` once that has been read too."""

    reader: Reader
    sampled: list[int] = field(default_factory=list)
    last: "RequestOutput | None" = None
    whole: Completion | None = None
    delivered: bool = False

    def feed(self, output: "RequestOutput") -> list[str | Thought]:
        self.last = output
        reply = output.outputs[0]
        self.sampled += reply.token_ids
        return self.reader.feed(reply.text, reply.token_ids)


def _parameters(sampling: Sampling, form: str | None, output_kind: Any) -> "SamplingParams":
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    structured = None if form is None else StructuredOutputsParams(grammar=form)
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
