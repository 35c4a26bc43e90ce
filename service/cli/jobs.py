"""``python -m service jobs``, ``watch``, ``cancel`` and ``notice``: the jobs of a running service."""

import argparse
from collections.abc import Iterator
from contextlib import AbstractContextManager

from rich.console import Console

from redraft import CritiqueResult, GenerateResult, JobStatus, Redraft, RedraftError, RefineResult
from redraft.results import Result
from service.cli import terminal
from service.cli.ask import add_connection, follow
from service.cli.standard_streams import Output

MOST_JOBS = 100


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    add_connection(parser)
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="most jobs to list (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print each job as a line of JSON")


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    add_connection(parser)
    parser.add_argument("id", help="the job's id, as `jobs` lists it")
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON, and nothing else")


def add_notice_arguments(parser: argparse.ArgumentParser) -> None:
    add_connection(parser)
    parser.add_argument("id", help="the job's id, as `jobs` lists it")
    parser.add_argument("--again", action="store_true", help="send it again, whatever became of it before")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def list_jobs(arguments: argparse.Namespace) -> int:
    """Print a line for each job, the newest first."""
    output = Output()
    try:
        with Redraft(arguments.url, arguments.key) as client:
            for job in _newest(client, arguments.limit):
                if arguments.json:
                    output.write_json(job.model_dump(mode="json"))
                else:
                    output.write(f"{_line(job)}\n")
    except RedraftError as error:
        terminal.show_failure(Console(stderr=True), error)
        return 1
    return int(output.closed)


def watch(arguments: argparse.Namespace) -> int:
    """Show what happens in a job from its beginning, then print its text."""
    console, output = Console(stderr=True), Output()

    def stream(client: Redraft) -> AbstractContextManager[Iterator[Result]]:
        return client.job(arguments.id).events()

    def show(event: Result) -> None:
        if not arguments.json:
            terminal.show_any(console, event)
        match event:
            case RefineResult() | GenerateResult() | CritiqueResult() if arguments.json:
                output.write_json(event.model_dump(mode="json", exclude_unset=True))
            case RefineResult():
                output.write(f"{event.text}\n")
            case GenerateResult():
                output.write("".join(f"{choice.text}\n" for choice in event.choices))
            case CritiqueResult():
                output.write(f"{event.feedback or ''}\n")

    return follow(arguments, console, stream, show) or int(output.closed)


def cancel(arguments: argparse.Namespace) -> int:
    """End a job with the best that it has so far, and print what it is now."""
    output = Output()
    try:
        with Redraft(arguments.url, arguments.key) as client:
            job = client.job(arguments.id).cancel()
    except RedraftError as error:
        terminal.show_failure(Console(stderr=True), error)
        return 1
    if arguments.json:
        output.write_json(job.model_dump(mode="json"))
    else:
        output.write(f"{_line(job)}\n")
    return int(output.closed)


def notice(arguments: argparse.Namespace) -> int:
    """Print what became of the notice of a job's end, or send it again."""
    output = Output()
    try:
        with Redraft(arguments.url, arguments.key) as client:
            job = client.job(arguments.id)
            found = job.send_notice() if arguments.again else job.notice()
    except RedraftError as error:
        terminal.show_failure(Console(stderr=True), error)
        return 1
    if arguments.json:
        output.write_json(found.model_dump(mode="json"))
    else:
        reason = found.error or ("" if found.status is None else f"status {found.status}")
        output.write(f"{found.state}  {found.url}  attempts {found.attempts}  {reason}".rstrip() + "\n")
    return int(output.closed)


def _newest(client: Redraft, limit: int) -> Iterator[JobStatus]:
    last: str | None = None
    while limit > 0:
        page = client.jobs(min(limit, MOST_JOBS), last)
        yield from page
        limit -= len(page)
        if not page:
            return
        last = page[-1].id


def _line(job: JobStatus) -> str:
    score = "" if job.progress.score is None else f"score {job.progress.score:.2f}"
    came = "" if job.progress.round is None else f"round {job.progress.round}"
    created = job.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return f"{job.id}  {created}  {job.kind:8}  {job.state:9}  {came:8}  {score}".rstrip()
