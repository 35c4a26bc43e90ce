"""``python -m bench.performance.recording serve``: the service as it is, but its engine's calls are recorded.

Two routes are added to the service's own: ``POST /bench/begin?fixed=true`` forgets what was recorded and says whether
lengths are fixed from now on, and ``GET /bench/account`` gives the token account of the calls since.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.performance.account import Account, Call, account
from bench.performance.lengths import FIXED, NEVER
from service.app import open_toolbox
from service.cli.server import Server, configure_logging
from service.engines.remote.connect import Tokenizers
from service.engines.served import ServedEngine
from service.fleet import start_engine
from service.settings import Settings

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

Generate = Callable[..., AsyncGenerator[Any, None]]
"""``AsyncLLM.generate``, or a stand-in; it yields RequestOutputs."""


@dataclass
class Recorder:
    """Keeps of each engine call the output that the engine has made anyway, and sums nothing up until it is asked.

    While lengths are ``fixed`` it sets what the wire cannot ask for. It expects what refine's calls have: one output,
    at the end. ``bias``: on the logits of the tokens that end a reply.
    """

    fixed: bool = False
    bias: Mapping[int, float] = field(default_factory=dict)
    outputs: "list[RequestOutput | None]" = field(default_factory=list)

    async def start(self, settings: Settings, tokenizers: Tokenizers) -> ServedEngine:
        """The service's own engine. Only the one method is exchanged, so that it starts and ends as it does there."""
        engine: Any = await start_engine(settings, tokenizers)
        self.bias = dict.fromkeys(engine.tokenizer.all_special_ids, NEVER)
        engine._llm.generate = self.recording(engine._llm.generate)
        served: ServedEngine = engine
        return served

    def recording(self, generate: Generate) -> Generate:
        async def recorded(
            prompt: Any, params: "SamplingParams", request_id: str, **options: Any
        ) -> "AsyncGenerator[RequestOutput, None]":
            outputs, place = self.outputs, len(self.outputs)
            outputs.append(None)
            if self.fixed and params.max_tokens != 1:
                self._fix(params)
            async with aclosing(generate(prompt, params, request_id, **options)) as replies:
                async for output in replies:
                    if output.finished:
                        outputs[place] = output
                    yield output

        return recorded

    def _fix(self, params: "SamplingParams") -> None:
        """No reply ends before its last token. A critique, known by its schema, becomes free text."""
        if params.structured_outputs is not None:
            params.structured_outputs = None
            params.max_tokens = FIXED.critique
        params.logit_bias = dict(self.bias)

    async def begin(self, *, fixed: bool) -> None:
        self.outputs = []
        self.fixed = fixed

    async def account(self) -> Account:
        """That of the calls that are over, in the order in which they were sent."""
        finished = [output for output in self.outputs if output is not None]
        return account(
            Call(output.prompt_token_ids or (), output.outputs[0].token_ids, output.num_cached_tokens or 0)
            for output in finished
        )


def main() -> None:
    settings = Settings()
    configure_logging(settings.log_level)
    recorder = Recorder()
    server = Server(settings, asyncio.run(open_toolbox(settings)), recorder.start)
    app: Any = server.config.app
    app.add_api_route("/bench/begin", recorder.begin, methods=["POST"])
    app.add_api_route("/bench/account", recorder.account)
    asyncio.run(server.serve())


if __name__ == "__main__":
    main()
