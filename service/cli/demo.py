"""``make demo``: refine a text on a running server and show its rounds, as they happen, in the terminal."""

import argparse
import json

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from redraft import RefineEvent, RefineResult
from redraft.requests import RefineFields
from service.cli import ask, terminal

REQUEST: RefineFields = {
    "prompt": "Describe a sunrise over the sea.",
    "evaluators": [
        {"type": "length", "unit": "words", "max": 40},
        {"type": "keywords", "include": ["gulls"]},
    ],
    "search": {"preset": "beam", "drafts": 2},
    "sampling": {"max_tokens": 120, "seed": 2},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    ask.add_connection(parser)
    parser.add_argument("--prompt", help="what to write, instead of the example")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 once a text was returned, 1 otherwise."""
    console = Console()
    request: RefineFields = REQUEST
    if arguments.prompt:
        request = {**REQUEST, "prompt": arguments.prompt, "evaluators": []}
    console.print(Panel(Text(request["prompt"] or ""), title="request"))
    for evaluator in request["evaluators"]:
        console.print(f"  must hold: {json.dumps(evaluator)}", style="dim", markup=False)

    def show(event: RefineEvent) -> None:
        terminal.show(console, event)
        if isinstance(event, RefineResult):
            style = "yellow" if event.passed is False else "green"
            console.print(Panel(Text(event.text), title="result", style=style))

    return ask.follow(arguments, console, lambda client: client.stream_refine(**request), show)
