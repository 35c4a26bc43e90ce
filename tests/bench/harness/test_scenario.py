"""What makes a command of a scenario."""

import importlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pytest

from bench.harness import page
from bench.harness.scenario import Report, parse_options, run_scenario, take_turns


@dataclass(frozen=True)
class Options:
    rate: Annotated[float, "requests a second"] = 100
    levels: Annotated[Sequence[float], "of load"] = (0.5, 1)
    max_programs: Annotated[int | None, "at once"] = None
    short: Annotated[bool, "end soon"] = False
    arm: Annotated[Sequence[Sequence[str]], "more", {"nargs": 2, "action": "append"}] = ()


Parse = Callable[..., Options]


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Parse:
    def parse(*arguments: str) -> Options:
        monkeypatch.setattr(sys, "argv", ["sea", *arguments])
        return parse_options("sea", Options)

    return parse


def test_options_have_their_defaults(parse: Parse) -> None:
    found = parse()

    assert (found.rate, list(found.levels), found.max_programs, found.short) == (100, [0.5, 1], None, False)


def test_options_are_read_by_their_types(parse: Parse) -> None:
    found = parse(
        *("--rate", "2.5"), *("--levels", "1", "2", "4"), *("--max-programs", "8"), "--short", *("--arm", "a", "{}")
    )

    assert found == Options(2.5, [1.0, 2.0, 4.0], 8, True, [["a", "{}"]])


@pytest.mark.parametrize(
    "module",
    [
        "bench.performance.__main__",
        "bench.quality.__main__",
        *(
            f"bench.scenarios.{name}"
            for name in ("batches", "cost.__main__", "overhead", "overload", "replicas", "scheduling", "schemas")
        ),
    ],
)
def test_every_benchmark_has_options_with_defaults(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options: Any = importlib.import_module(module).Options
    monkeypatch.setattr(sys, "argv", ["sea"])

    assert parse_options("sea", options) == options(**{f.name: unfrozen(f.default) for f in fields(options)})


def unfrozen(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


def test_no_arm_always_goes_first() -> None:
    assert list(take_turns("ab", 3)) == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]


Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a scenario named ``sea`` that reports its rate, with a page in the test's folder."""
    file = tmp_path / "page.md"
    file.write_text("<!-- sea -->\n<!-- end of sea -->\n")
    monkeypatch.setattr(page, "PERFORMANCE", file)

    async def measure(options: Options) -> Report:
        return Report("a-model", "It was calm.", [f"Rate {options.rate:g}.", "| a |"], failed=options.short)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["bench.scenarios.sea", *arguments])
        return run_scenario("sea", Options, measure)

    return run


def test_a_scenario_prints_its_section_and_writes_it_if_asked(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form = r"Model a-model, \d{4}-\d\d-\d\d, commit \S+\. It was calm\.\n\nRate 7\.\n\n\| a \|"

    assert run("--rate", "7") == 0
    printed = capsys.readouterr().out
    assert re.fullmatch(form + "\n", printed)
    assert "calm" not in (tmp_path / "page.md").read_text()

    assert run("--rate", "7", "--write") == 0
    assert printed in (tmp_path / "page.md").read_text()


def test_a_failed_scenario_says_so_by_its_status(run: Run) -> None:
    assert run("--short") == 1


def test_only_a_scenario_with_an_engine_of_its_own_can_serve(run: Run) -> None:
    with pytest.raises(SystemExit):
        run("serve")
