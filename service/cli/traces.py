"""``python -m service traces`` and ``preferences``: the stored traces of a running service, from the command line."""

import argparse
from collections.abc import Iterator
from typing import get_args

from rich.console import Console

from redraft import Redraft, RedraftError, TraceSummary
from redraft.traces import PreferenceFormat
from service.cli import terminal
from service.cli.ask import add_connection
from service.cli.standard_streams import Output

MOST_TRACES = 100


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    add_connection(parser)
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="most traces to list (%(default)s)")
    parser.add_argument("--task", metavar="NAME", help="only those of a task")
    parser.add_argument("--json", action="store_true", help="print each trace as a line of JSON")


def add_preference_arguments(parser: argparse.ArgumentParser) -> None:
    add_connection(parser)
    formats = get_args(PreferenceFormat)
    parser.add_argument("--format", choices=formats, default=formats[0], help="whose format (%(default)s)")
    parser.add_argument("--task", metavar="NAME", help="only those of a task")


def list_traces(arguments: argparse.Namespace) -> int:
    """Print a line for each trace, the newest first."""
    output = Output()
    try:
        with Redraft(arguments.url, arguments.key) as client:
            for trace in _newest(client, arguments.limit, arguments.task):
                if arguments.json:
                    output.write_json(trace.model_dump(mode="json"))
                else:
                    output.write(f"{_line(trace)}\n")
    except RedraftError as error:
        terminal.show_failure(Console(stderr=True), error)
        return 1
    return int(output.closed)


def print_preferences(arguments: argparse.Namespace) -> int:
    """Print a line of JSON for each pair."""
    output = Output()
    try:
        with (
            Redraft(arguments.url, arguments.key) as client,
            client.preferences(arguments.format, task=arguments.task) as pairs,
        ):
            for pair in pairs:
                output.write_json(pair)
    except RedraftError as error:
        terminal.show_failure(Console(stderr=True), error)
        return 1
    return int(output.closed)


def _newest(client: Redraft, limit: int, task: str | None) -> Iterator[TraceSummary]:
    last: str | None = None
    while limit > 0:
        page = client.traces(min(limit, MOST_TRACES), last, task=task)
        yield from page
        limit -= len(page)
        if not page:
            return
        last = page[-1].id


def _line(trace: TraceSummary) -> str:
    score = "" if trace.score is None else f"score {trace.score:.2f}"
    created = trace.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return f"{trace.id:37}  {created}  {trace.kind:8}  {trace.task:12}  {score}".rstrip()
