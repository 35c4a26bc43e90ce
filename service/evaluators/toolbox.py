"""What the operator gives the evaluators of this process, beside the engine."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.evaluators.embedding import Embedder
from service.evaluators.plugins import Plugin
from service.evaluators.sandbox import Sandbox
from service.evaluators.webhooks import Webhooks


@dataclass(frozen=True)
class Toolbox:
    """``sandbox`` and ``embedder`` are None where what they need is not installed.

    ``plugins``: the evaluators of other packages, by name.
    """

    sandbox: Sandbox | None = None
    embedder: Embedder | None = None
    webhooks: Webhooks = field(default_factory=Webhooks)
    plugins: Mapping[str, Plugin] = field(default_factory=dict)

    async def close(self) -> None:
        await self.webhooks.close()
