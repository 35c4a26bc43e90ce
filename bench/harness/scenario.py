"""What all scenarios share: options, arms that take turns, and a section of the page of results.

A scenario is a module with a dataclass of options and a coroutine function that measures. ``run_scenario`` makes a
command of them.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from bench.harness.origin import current_commit, origin
from bench.harness.page import PERFORMANCE, publish
from service.cli.main import serve

T = TypeVar("T")


@dataclass(frozen=True)
class Report:
    """What a scenario measured.

    model: what the service under test served.
    setup: sentences that say how it was measured.
    parts: paragraphs and tables.
    failed: whether something happened that must not, whatever the numbers are.
    """

    model: str
    setup: str
    parts: Sequence[str]
    failed: bool = False


def run_scenario(
    name: str,
    options: type[T],
    measure: Callable[[T], Coroutine[Any, Any, Report]],
    start_engine: Callable[..., Awaitable[Any]] | None = None,
) -> int:
    """Measure as the command line says, print the section and write it if asked. Returns the exit status.

    name: of the scenario's module, and of its section in the page.
    options: a dataclass, see add_options.
    start_engine: starts the engine that ``serve``, the scenario's second command, serves with.
    """
    parser = argparse.ArgumentParser(prog=f"python -m bench.scenarios.{name}")
    if start_engine:
        parser.add_argument("command", nargs="?", choices=["serve"], help="only serve, as the settings say")
    add_options(parser, options)
    parser.add_argument("--write", action="store_true", help=f"put the result into {PERFORMANCE.name}")
    values = vars(parser.parse_args())
    write, command = values.pop("write"), values.pop("command", None)
    if start_engine and command == "serve":
        return serve(start_engine)
    commit = current_commit()  # before measuring: it is what runs
    report = asyncio.run(measure(options(**values)))
    source = origin(report.model, commit, datetime.now(UTC).date())
    publish(name, "\n\n".join([f"{source} {report.setup}", *report.parts]), write=write)
    return int(report.failed)


def parse_options(command: str, options: type[T], description: str | None = None) -> T:
    """The options of a command line. ``command``: the module that ``python -m`` runs."""
    parser = argparse.ArgumentParser(prog=f"python -m {command}", description=description)
    add_options(parser, options)
    return options(**vars(parser.parse_args()))


def add_options(parser: argparse.ArgumentParser, options: type[Any]) -> None:
    """Add an option for each field of a dataclass.

    Fields are annotated with their help, as in ``seconds: Annotated[float, "of arrivals"] = 120``. A sequence takes
    several values, a bool is a flag. A dict after the help goes to argparse's ``add_argument``.
    """
    hints = get_type_hints(options, include_extras=True)
    for field in fields(options):
        kind, text, *more = get_args(hints[field.name])
        flag = f"--{field.name.replace('_', '-')}"
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        parser.add_argument(flag, default=default, help=text, **(more[0] if more else _arguments(kind)))


def _arguments(kind: Any) -> dict[str, Any]:
    """How argparse reads values of a type."""
    if kind is bool:
        return {"action": "store_true"}
    if get_origin(kind) is Sequence:
        return {"nargs": "+", "type": get_args(kind)[0]}
    return {"type": get_args(kind)[0] if isinstance(kind, UnionType) else kind}


def take_turns(arms: Sequence[T], repetitions: int) -> Iterator[tuple[int, T]]:
    """Each repetition with each arm, backwards every second time, so that no arm always goes first."""
    for repetition in range(repetitions):
        for arm in arms[::-1] if repetition % 2 else arms:
            yield repetition, arm


def say(text: str) -> None:
    """Report progress."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - for those who wait
