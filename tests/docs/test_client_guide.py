"""docs/guide/client.md: its examples run, and its tables name what there is."""

import asyncio
import inspect
import re
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

import redraft
from redraft import GenerateEvent, ProblemError, Redraft, RedraftError, RefineEvent
from tests.docs.test_docs import ROOT, blocks, names, quoted, table
from tests.support.serving import Served, serving

CLIENT = ROOT / "docs/guide/client.md"
URL = "http://127.0.0.1:8000"


@pytest.mark.parametrize("example", blocks(CLIENT, "python"))
async def test_examples_in_python(working: Served, example: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert URL in example
    code = compile(example.replace(URL, str(working.client.base_url)), "docs/guide/client.md", "exec")

    await asyncio.to_thread(exec, code, {"__name__": "__main__"})

    assert capsys.readouterr().out


async def test_examples_on_the_command_line(served: Served, tmp_path: Path) -> None:
    [example] = blocks(CLIENT, "sh")
    command = re.sub(
        r"python -m service (\w+)", rf"{sys.executable} -m service \1 --url {served.client.base_url}", example
    )
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", command),
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()

    assert (process.returncode, out) == (0, b"Waves.\n"), err
    assert (tmp_path / "sunrise.txt").read_text() == "Waves.\n"
    assert (tmp_path / "morning.json").read_text().startswith('{"id":"ref-')
    assert (tmp_path / "results.jsonl").read_text().startswith('{"custom_id":"sky","status":200,')
    assert b"round 0" in err


def test_arguments() -> None:
    shown = {quoted(row[0])[0]: row[1].strip("`") for row in table(CLIENT, "Ask")}
    parameters = dict(inspect.signature(Redraft).parameters)
    assert shown.pop("sleep") == "time.sleep"
    del parameters["sleep"]
    assert shown == {name: default_of(parameter.default) for name, parameter in parameters.items()}


def default_of(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def test_events() -> None:
    shown = {quoted(row[0])[0]: row[2] for row in table(CLIENT, "Stream")}
    assert shown == {
        **{kind.__name__: "generate" for kind in get_args(GenerateEvent)},
        **{kind.__name__: "refine" for kind in get_args(RefineEvent)},
    }


def test_errors() -> None:
    exported = [getattr(redraft, name) for name in redraft.__all__]
    errors = {e.__name__ for e in exported if isinstance(e, type) and issubclass(e, RedraftError)}
    assert {*names(table(CLIENT, "Errors")), "RedraftError"} == errors
    shown = {quoted(row[0])[0]: quoted(row[2]) for row in table(CLIENT, "Errors")}
    stated = re.findall(r"self\.(\w+)", inspect.getsource(ProblemError.__init__))
    assert shown["ProblemError"] == stated


async def test_a_key_in_the_environment_keeps_the_service_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAFT_API_KEY", "open")
    with pytest.raises(ValueError, match="did you mean REDRAFT_API_KEYS"):
        async with serving():
            pass
