"""``python -m service refine``, ``generate`` and ``batch``: ask a running service from the command line.

The text goes to standard output, so that it can be piped, and everything else to standard error. Exit codes: 0 if
there is a text, whether it passes or not; 1 for a failure; 2 for wrong usage.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from rich.console import Console

from redraft import BatchResult, Delta, GenerateEvent, GenerateResult, Redraft, RedraftError, RefineEvent, RefineResult
from redraft.exchange import Exchange
from redraft.requests import CommonFields, RefineFields
from service.cli import terminal
from service.cli.standard_streams import Output, Unreadable, decode_argument, read_file, read_input

KEY_VARIABLE = "REDRAFT_API_KEY"

E = TypeVar("E")


def add_connection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", type=_url, default="http://127.0.0.1:8000", help="the service's address (%(default)s)")
    parser.add_argument(
        "--key", default=os.environ.get(KEY_VARIABLE), help=f"a bearer key; by default the value of {KEY_VARIABLE}"
    )


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    add_connection(parser)
    parser.add_argument("prompt", type=_prompt, help="what to write; - reads it from standard input")
    parser.add_argument("--task", default="general", help="the kind of text (%(default)s)")
    parser.add_argument(
        "--parameter",
        type=_parameter,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the task; repeatable",
    )
    parser.add_argument("--model", metavar="NAME", help="the model that writes; by default the service's main one")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="most tokens of a text")
    parser.add_argument("--json", action="store_true", help="print the whole answer as JSON, and nothing else")


def add_refine_arguments(parser: argparse.ArgumentParser) -> None:
    add_generate_arguments(parser)
    parser.add_argument("--draft", type=_content, metavar="FILE", help="a first text to start from")
    parser.add_argument(
        "--evaluator", type=_object, action="append", default=[], metavar="JSON", help="an evaluator; repeatable"
    )
    parser.add_argument("--preset", help="how to search, such as best_of_n or beam")
    parser.add_argument("--critic-model", metavar="NAME", help="the model that critiques")
    parser.add_argument("--judge-model", metavar="NAME", help="the model that judges")
    parser.add_argument("--rounds", type=int, metavar="N", help="most rounds after the drafts")
    parser.add_argument("--seconds", type=float, metavar="N", help="time limit; the best text so far is printed")
    parser.add_argument("--background", action="store_true", help="print the id of a job at once, and do not wait")
    parser.add_argument("--notify", metavar="URL", help="the same, and have a notice of the job's end sent to URL")


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    add_connection(parser)
    parser.add_argument(
        "lines", type=_lines, metavar="FILE", help="a file of JSON lines, one request each; - for standard input"
    )


def generate(arguments: argparse.Namespace) -> int:
    """Print the text as it is written."""
    console, output = Console(stderr=True), Output()

    def stream(client: Redraft) -> AbstractContextManager[Iterator[GenerateEvent]]:
        return client.stream_generate(prompt=arguments.prompt, **_common(arguments))

    def show(event: GenerateEvent) -> None:
        match event:
            case _ if arguments.json:
                _print_last(output, event)
            case Delta():
                output.write(event.text)
            case GenerateResult():
                output.write("\n")
                terminal.show_cost(console, event.usage, event.timing)

    return follow(arguments, console, stream, show) or int(output.closed)


def refine(arguments: argparse.Namespace) -> int:
    """Show the rounds as they happen, then print the text."""
    console, output = Console(stderr=True), Output()

    if arguments.background or arguments.notify:
        return _begin(arguments, console, output)

    def stream(client: Redraft) -> AbstractContextManager[Iterator[RefineEvent]]:
        return client.stream_refine(**_refine_fields(arguments))

    def show(event: RefineEvent) -> None:
        if arguments.json:
            _print_last(output, event)
            return
        terminal.show(console, event)
        if isinstance(event, RefineResult):
            output.write(f"{event.text}\n")

    return follow(arguments, console, stream, show) or int(output.closed)


def _begin(arguments: argparse.Namespace, console: Console, output: Output) -> int:
    """Print the id of the job that the request has become."""
    try:
        with Redraft(arguments.url, arguments.key) as client:
            output.write(f"{client.refine(background=True, notify=arguments.notify, **_refine_fields(arguments)).id}\n")
    except RedraftError as error:
        terminal.show_failure(console, error)
        return 1
    return int(output.closed)


def batch(arguments: argparse.Namespace) -> int:
    """Print a line of JSON for each request as soon as it is finished."""
    output = Output()

    def show(result: BatchResult) -> None:
        output.write_json({"custom_id": result.custom_id, "status": result.status, "body": result.body})

    code = follow(arguments, Console(stderr=True), lambda client: client.batch(arguments.lines), show)
    return code or int(output.closed)


def follow(
    arguments: argparse.Namespace,
    console: Console,
    stream: Callable[[Redraft], AbstractContextManager[Iterator[E]]],
    show: Callable[[E], None],
) -> int:
    """Hand each event to ``show``, and print a failure on the console. Returns the exit code."""
    try:
        with Redraft(arguments.url, arguments.key) as client, stream(client) as events:
            for event in events:
                show(event)
    except RedraftError as error:
        terminal.show_failure(console, error)
        return 1
    return 0


def _refine_fields(arguments: argparse.Namespace) -> RefineFields:
    common = _common(arguments)
    return {
        "prompt": arguments.prompt,
        "draft": arguments.draft,
        "models": {"critic": arguments.critic_model, "judge": arguments.judge_model},
        "evaluators": arguments.evaluator,
        "search": {"preset": arguments.preset, "rounds": arguments.rounds},
        "budget": {"seconds": arguments.seconds},
        "task": common["task"],
        "parameters": common["parameters"],
        "model": common["model"],
        "sampling": common["sampling"],
    }


def _common(arguments: argparse.Namespace) -> CommonFields:
    return {
        "task": arguments.task,
        "parameters": dict(arguments.parameter),
        "model": arguments.model,
        "sampling": {"max_tokens": arguments.max_tokens},
    }


def _print_last(output: Output, event: GenerateEvent | RefineEvent) -> None:
    if isinstance(event, GenerateResult | RefineResult):
        output.write_json(event.model_dump(mode="json", exclude_unset=True))


def _url(value: str) -> str:
    try:
        Exchange(value, api_key=None, timeout=None, retries=0)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return value


def _prompt(value: str) -> str:
    return _content("-").rstrip("\n") if value == "-" else _argument(value)


def _argument(value: str) -> str:
    try:
        return decode_argument(value)
    except Unreadable as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _lines(path: str) -> Sequence[Mapping[str, Any]]:
    return [_object(line) for line in _content(path).split("\n") if line.strip()]


def _content(path: str) -> str:
    try:
        return read_input() if path == "-" else read_file(path)
    except Unreadable as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parameter(value: str) -> tuple[str, str]:
    name, equals, text = _argument(value).partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{value} is not of the form NAME=VALUE")
    return name, text


def _object(value: str) -> Mapping[str, Any]:
    try:
        found = json.loads(value)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair cannot be sent
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{value} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{value} is not a JSON object")
    return found
