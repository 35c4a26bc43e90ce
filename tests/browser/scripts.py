"""What the engine writes in the tests of the page: a text that becomes better round by round."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Page

from service.engines.base import Sample
from service.engines.scripted import EngineCall, Script
from tests.support.scripts import is_doubt, rated, role_of

LONG = (
    "A steel bottle that keeps cold water cold for a whole day and hot tea hot for twelve hours, with a lid that never "
    "leaks, and a finish that shrugs off scratches, drops and years of everyday use in any weather."
)
SHORTER = (
    "A steel bottle that keeps cold water cold for a whole day and hot tea hot for twelve hours, with a lid that never "
    "leaks, and a finish that shrugs off scratches."
)
SHORT = "A steel bottle that keeps cold water cold all day and hot tea hot for twelve hours. The lid never leaks."
PROMPT = "Write a product description for a steel water bottle."


@dataclass
class Writer:
    """Writes one text after the other; the last is repeated. Revisions wait until they are ``allowed``."""

    texts: tuple[str, ...] = (LONG, SHORTER, SHORT)
    seconds_per_call: float = 0.0
    allowed: asyncio.Event | None = None
    written: list[str] = field(default_factory=list)

    def reply(self, call: Sample) -> str:
        if call.schema is not None:
            return json.dumps({"issues": ["Name one benefit, and end there."]})
        self.written.append(self.texts[min(len(self.written), len(self.texts) - 1)])
        return self.written[-1]

    def script(self, **more: Any) -> Script:
        return Script(reply=self.reply, weights=weights, seconds_per_call=self.seconds_per_call, **more)


def weights(call: EngineCall) -> Sequence[float]:
    """The critic finds fault; the judge likes short texts; nothing is expected of a text's words."""
    if is_doubt(call):
        return rated(0.0)
    if role_of(call) == "judge":
        return rated(0.86 if SHORT in call.prompt else 0.3)
    options = getattr(call, "options", ())
    return [1.0 / len(options)] * len(options)


def is_revision(call: EngineCall) -> bool:
    return isinstance(call, Sample) and role_of(call) == "revise"


def request(**fields: Any) -> Mapping[str, Any]:
    """A request whose rounds are worth watching: no grammar, no repair and no abort shortens them."""
    return {
        "prompt": PROMPT,
        "evaluators": [{"type": "length", "unit": "words", "max": 22}],
        "search": {"rounds": 3, "repairs": False, "aborts": False, "constraints": "off", "critic": "model"},
        "stop": {"target": 0.75, "patience": 5},
        **fields,
    }


async def state(page: Page, form: Mapping[str, Any]) -> None:
    """State a request in the form, as if the tab had kept it."""
    await page.evaluate("form => sessionStorage.setItem('redraft.form', JSON.stringify(form))", dict(form))
    await page.reload()
    await page.wait_for_selector(".adder")


async def phase(page: Page, name: str) -> None:
    """Wait until the run is in a phase."""
    await page.wait_for_selector(f".status[data-phase={name}]")
