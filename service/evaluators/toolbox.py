"""What the operator gives the evaluators of this process, beside the engine."""

from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

from service.evaluators.code.sandbox import Sandbox
from service.evaluators.external.plugins import Plugin
from service.evaluators.external.webhook_client import Webhooks
from service.evaluators.model.embedding import Embedder

THREADS = 4


@dataclass(frozen=True)
class Toolbox:
    """``sandbox`` and ``embedder`` are None where what they need is not installed.

    ``plugins``: the evaluators of other packages, by name. ``threads`` run the checks that take long. They are not the
    event loop's own, which decode requests: nobody's checks shall keep another's request from being read.
    """

    sandbox: Sandbox | None = None
    embedder: Embedder | None = None
    webhooks: Webhooks = field(default_factory=Webhooks)
    plugins: Mapping[str, Plugin] = field(default_factory=dict)
    threads: Executor = field(default_factory=lambda: ThreadPoolExecutor(THREADS, thread_name_prefix="evaluator"))

    async def close(self) -> None:
        """Checks that are queued are not begun; those at work are not waited for."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        if self.embedder is not None:
            self.embedder.close()
        await self.webhooks.close()
