"""``python -m service refine`` and ``generate`` against the whole service over real HTTP."""

import asyncio
import hashlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from redraft import GenerateResult, RefineResult
from service.cli.main import main
from service.engines.base import Sample
from service.engines.scripted import EngineCall, Script
from service.errors import EngineDead
from tests.support.scripts import role_of
from tests.support.serving import Served, reply, serving

SALT = '{"type": "keywords", "include": ["salt"]}'
PEPPER = '{"type": "keywords", "include": ["[pepper]"]}'


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Run = Callable[..., "asyncio.Future[Ended]"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in a thread, while the event loop serves it."""

    async def ended(*arguments: str, stdin: str = "") -> Ended:
        monkeypatch.setattr(sys, "argv", ["redraft", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        monkeypatch.setenv("COLUMNS", "200")
        try:
            code = await asyncio.to_thread(main)
        except SystemExit as error:
            code = int(str(error.code))
        return Ended(code, *capsys.readouterr())

    return lambda *arguments, **options: asyncio.ensure_future(ended(*arguments, **options))


def at(served: Served) -> tuple[str, str]:
    return "--url", str(served.client.base_url)


async def test_refine_prints_the_text_and_shows_the_rounds_beside_it(served: Served, run: Run) -> None:
    ended = await run("refine", "-", *at(served), "--evaluator", SALT, stdin="Write about the sea.\n")

    assert (ended.code, ended.out) == (0, "Salt waves.\n")
    shown = [line.strip() for line in ended.err.splitlines()]
    for line in (
        "keywords: missing: salt",
        "- missing: salt",
        "round 1: accepted, the best is c1",
        "what changed:",
        "stopped by fixpoint, the best is c1",
    ):
        assert line in shown
    assert any("round 1 · c1 · edit of c0" in line for line in shown)
    assert served.engine.calls[0].prompt == "Write about the sea."


async def test_a_text_that_does_not_pass_is_a_text(served: Served, run: Run) -> None:
    ended = await run("refine", "Write.", *at(served), "--evaluator", PEPPER, "--rounds", "0")

    assert (ended.code, ended.out) == (0, "Waves.\n")
    assert "keywords: missing: [pepper]" in ended.err
    assert "It does not pass: not every hard rule holds." in ended.err


async def test_json_is_the_whole_answer_and_nothing_else(served: Served, run: Run) -> None:
    refined = await run("refine", "Write.", *at(served), "--evaluator", PEPPER, "--preset", "best_of_n", "--json")
    generated = await run("generate", "Write.", *at(served), "--json")

    assert (refined.code, refined.err, generated.code, generated.err) == (0, "", 0, "")
    body = json.loads(refined.out)
    sent = (await served.post("/v1/refine", {"prompt": "Write.", "evaluators": [json.loads(PEPPER)]})).json()
    assert body.keys() == sent.keys()
    assert body["rounds"][0]["candidates"][0] == sent["rounds"][0]["candidates"][0]
    assert RefineResult.model_validate(body).passed is False
    assert len(body["rounds"][0]["candidates"]) == 4
    assert GenerateResult.model_validate_json(generated.out).choices[0].text == "Waves."


async def test_options_reach_the_service(served: Served, run: Run, tmp_path: Path) -> None:
    draft = tmp_path / "draft.txt"
    draft.write_text("Sand and salt.")
    ended = await run(
        *("refine", "Guten Morgen.", *at(served), "--task", "translate", "--parameter", "target_language=English=US"),
        *("--draft", str(draft), "--evaluator", SALT, "--rounds", "1", "--max-tokens", "1", "--seconds", "50"),
        "--json",
    )

    body = json.loads(ended.out)
    assert (body["text"], body["rounds"][0]["candidates"][0]["text"]) == ("Sand and salt.", "Sand and salt.")
    assert "English=US" in served.engine.calls[0].prompt
    written = [call.sampling for call in served.engine.calls_of(Sample) if role_of(call) == "revise"]
    assert {sampling.max_tokens for sampling in written if sampling} == {1}


async def test_generate_prints_the_text_and_its_cost(run: Run) -> None:
    async with serving(Script(reply=lambda call: "One two three.")) as served:
        ended = await run("generate", "Count.", *at(served), "--max-tokens", "2")

    assert (ended.code, ended.out) == (0, "One two\n")
    assert "1 calls" in ended.err
    assert "2 written" in ended.err


async def test_a_key_is_given_or_stands_in_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(api_keys=f"someone:{hashlib.sha256(b'open').hexdigest()}") as served:
        without = await run("generate", "Write.", *at(served))
        given = await run("generate", "Write.", *at(served), "--key", "open")
        monkeypatch.setenv("REDRAFT_API_KEY", "open")
        found = await run("generate", "Write.", *at(served))

    assert (without.code, without.out) == (1, "")
    assert "A valid key is needed" in without.err
    assert given.out == found.out == "Waves.\n"


@pytest.mark.parametrize("json_wanted", [[], ["--json"]])
async def test_failures_are_told_and_end_with_1(run: Run, json_wanted: list[str]) -> None:
    def dying(call: EngineCall) -> None:
        raise EngineDead("it was killed")

    async with serving(Script(reply=reply, fault=dying)) as served:
        died = await run("refine", "Write.", *at(served), *json_wanted)
        refused = await run("refine", "Write.", *at(served), "--preset", "[bold]best", *json_wanted)

    assert (died.code, died.out, died.err) == (1, "", "The engine has stopped: it was killed\n")
    assert (refused.code, refused.out) == (1, "")
    assert "search.preset" in refused.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["refine"],
        ["refine", "Write.", "--evaluator", "length"],
        ["refine", "Write.", "--evaluator", "[]"],
        ["refine", "Write.", "--parameter", "target_language"],
        ["refine", "Write.", "--draft", "there/is/no/such/file"],
        ["refine", "Write.", "--rounds", "many"],
        ["generate", "Write.", "--url", "127.0.0.1:8000"],
    ],
)
async def test_wrong_usage_ends_with_2(run: Run, arguments: list[str]) -> None:
    ended = await run(*arguments)

    assert (ended.code, ended.out) == (2, "")
    assert f"usage: python -m service {arguments[0]}" in ended.err


async def test_demo_shows_its_example(served: Served, run: Run) -> None:
    ended = await run("demo", *at(served))

    assert ended.code == 0
    assert "must hold: " in ended.out
    assert "round 0 · c1 · draft" in ended.out
    assert "─ result ─" in ended.out


async def test_models_are_named_on_the_command_line(served: Served, run: Run) -> None:
    roles = ("--critic-model", "scripted", "--judge-model", "scripted")
    ended = await run("refine", "Why?", *at(served), "--model", "scripted", *roles, "--json")
    result = RefineResult.model_validate_json(ended.out)
    wrong = [
        await run("refine", "Why?", *at(served), "--judge-model", "nobody"),
        await run("generate", "Why?", *at(served), "--model", "nobody"),
    ]

    assert result.models.model_dump(exclude_none=True) == dict.fromkeys(("writer", "critic", "judge"), "scripted")
    assert [ended.code for ended in wrong] == [1, 1]
    assert "models.judge" in wrong[0].err
    assert "there are scripted" in wrong[1].err


async def test_a_batch_prints_a_line_for_each_request(served: Served, run: Run, tmp_path: Path) -> None:
    prompt = {"prompt": "Write about the sea."}
    lines = [
        json.dumps({"custom_id": "a", "url": "/v1/generate", "body": prompt}),
        json.dumps({"custom_id": "b", "url": "/v1/refine", "body": {**prompt, "task": "none"}}),
    ]
    file = tmp_path / "requests.jsonl"
    file.write_text("\n".join(lines))
    ended = [
        await run("batch", str(file), *at(served)),
        await run("batch", "-", *at(served), stdin="\n".join(lines)),
        await run("batch", "-", *at(served), stdin=lines[0] + "\n" + lines[0]),
        await run("batch", "-", *at(served), stdin="{"),
    ]

    assert [each.code for each in ended] == [0, 0, 1, 2]
    for each in ended[:2]:
        results = {result["custom_id"]: result for result in map(json.loads, each.out.splitlines())}
        assert {name: result["status"] for name, result in results.items()} == {"a": 200, "b": 422}
        assert results["a"]["body"]["choices"][0]["text"] == "Waves."
    assert "requests.1.custom_id" in ended[2].err
