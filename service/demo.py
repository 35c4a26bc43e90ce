"""``make demo``: refine a text on a running server and show its rounds, as they happen, in the terminal."""

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

REQUEST: Mapping[str, Any] = {
    "prompt": "Describe a sunrise over the sea.",
    "evaluators": [
        {"type": "length", "unit": "words", "max": 40},
        {"type": "keywords", "include": ["gulls"]},
    ],
    "search": {"preset": "beam", "drafts": 2},
    "sampling": {"max_tokens": 120, "seed": 2},
    "stream": True,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the server is")
    parser.add_argument("--key", help="a bearer key, if the server wants one")
    parser.add_argument("--prompt", help="what to write, instead of the example")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 once a text was returned, 1 otherwise."""
    console = Console()
    request = {**REQUEST, "prompt": arguments.prompt, "evaluators": []} if arguments.prompt else dict(REQUEST)
    headers = {"Authorization": f"Bearer {arguments.key}"} if arguments.key else {}
    console.print(Panel(request["prompt"], title="request"))
    for evaluator in request["evaluators"]:
        console.print(f"  must hold: {json.dumps(evaluator)}", style="dim", markup=False)
    try:
        with httpx.stream(
            "POST",
            f"{arguments.url}/v1/refine",
            json=request,
            headers=headers,
            timeout=None,  # noqa: S113 - rounds take time
        ) as response:
            if response.status_code != 200:
                console.print(response.read().decode(), style="red", markup=False)
                return 1
            return _show(console, _events(response))
    except httpx.HTTPError as error:
        console.print(f"No answer from {arguments.url} ({error}). Is `make serve` running?", style="red")
        return 1


def _events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def _show(console: Console, events: Iterator[tuple[str, dict[str, Any]]]) -> int:
    for name, event in events:
        match name:
            case "candidate":
                origin = (
                    f"edit of {event['parent']}" if event["parent"] else "draft" if event["round"] == 0 else "redraft"
                )
                console.print(Panel(Text(event["text"]), title=f"round {event['round']} · {event['id']} · {origin}"))
            case "evaluation":
                _show_evaluation(console, event)
            case "critique":
                remarks = event["issues"] or ["nothing to change"]
                console.print(f"  critique of {event['candidate']}:", style="yellow")
                for remark in remarks:
                    console.print(f"    - {remark}", style="yellow", markup=False)
            case "round":
                word = "accepted" if event["accepted"] else "nothing better"
                console.print(f"  round {event['round']}: {word}, the best is {event['incumbent']}\n", style="bold")
            case "done":
                _show_result(console, event)
                return 0
            case "error":
                console.print(f"{event['title']}: {event['detail']}", style="red", markup=False)
                return 1
    console.print("The stream ended early.", style="red")
    return 1


def _show_evaluation(console: Console, event: Mapping[str, Any]) -> None:
    score = "unknown" if event["score"] is None else f"{event['score']:.2f}"
    console.print(f"  {event['candidate']} scores {score}", style="cyan")
    for evaluation in event["evaluations"]:
        for issue in evaluation["issues"]:
            console.print(f"    {evaluation['evaluator']}: {issue['message']}", style="red", markup=False)
        for criterion in evaluation.get("criteria") or ():
            shown = (
                "abstained" if criterion["score"] is None else f"{criterion['score']:.2f} ± {criterion['stderr']:.2f}"
            )
            console.print(f"    {criterion['name']}: {shown}", style="dim")


def _show_result(console: Console, done: Mapping[str, Any]) -> None:
    selected = next(c for r in done["rounds"] for c in r["candidates"] if c["id"] == done["selected"]["candidate"])
    if selected["diff"]:
        console.print("  what changed:", style="bold")
        shown = Text("    ")
        styles = {"equal": "", "insert": "green", "delete": "red strike"}
        for change in selected["diff"]:
            shown.append(change["text"], style=styles[change["op"]])
        console.print(shown)
    usage = done["usage"]["total"]
    console.print(
        Panel(
            Text(done["text"]),
            title=f"result · stopped by {done['stop_reason']} · {done['timing']['total_seconds']:.1f} s",
            subtitle=f"{usage['calls']} calls · {usage['prompt_tokens']} prompt tokens, "
            f"{usage['cached_tokens']} of them cached · {usage['completion_tokens']} written",
            style="green" if done["passed"] is not False else "yellow",
        )
    )
