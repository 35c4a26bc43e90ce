"""Learning from the command line, with a scripted engine as the model and no training."""

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.cli import learn, main
from service.engines.base import Sample
from service.engines.conversation import Conversation
from service.engines.scripted import Script, ScriptedEngine
from service.engines.served import ServedEngine
from service.learning.collected import read_lines
from service.learning.launching import OUTPUT, Launcher
from service.learning.practice import make_prompts
from service.learning.prompts import Prompt
from service.learning.registry import Registry
from service.learning.runs import read_runs
from service.settings import Settings
from tests.learning.test_merger import fake as fake_merger
from tests.learning.test_trainer import fake
from tests.support.adapters import add_adapter
from tests.support.stored_traces import candidate, make_document, make_trace, trace_store

ROOT = Path(__file__).parents[2]
RECIPE = """
[practice]
prompts = 300
kept_out = ["placeholders", "sections"]
[collecting]
samples = 2
constrained = 0
temperature = 0.7
max_tokens = 60
[training]
rank = 8
alpha = 16
max_length = 320
batch = 8
texts_epochs = 1
texts_rate = 5e-4
pairs_epochs = 1
pairs_rate = 3e-5
beta = 0.3
imitation = 0.2
seconds = 60
least_texts = 5
[examining]
prompts = 10
samples = 1
temperature = 0.7
max_tokens = 60
margin = 0.1
look = 5
"""


@dataclass
class AdaptableEngine(ScriptedEngine):
    """A scripted engine with adapters, which write other texts."""

    async def load_adapter(self, name: str, folder: Path) -> "AdaptableEngine":
        assert (folder / "adapter_model.safetensors").exists()
        return AdaptableEngine(Script(reply=lambda call: "we know it better."), model=name)

    async def drop_adapter(self, adapter: ServedEngine) -> None:
        pass

    def prompt_ids(self, conversation: Conversation, prefill: str = "", *, thinking: bool = True) -> list[int]:
        return []

    async def close(self) -> None:
        pass


def reply(call: Sample) -> str:
    drawn = hashlib.sha256(f"{call.prompt}{call.sampling.seed}".encode()).digest()[0]
    return ("we know it well.", "Well, IT is so.")[drawn % 2]


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def start(settings: Settings) -> AdaptableEngine:
        return AdaptableEngine(Script(reply=reply))

    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    monkeypatch.setattr(learn, "start_engine", start)
    monkeypatch.setattr("service.learning.workshop.Trainer", lambda: fake("works"))
    monkeypatch.setattr("service.learning.workshop.Merger", fake_merger)
    monkeypatch.setenv("REDRAFT_MODEL", str(base))
    (tmp_path / "tiny.toml").write_text(RECIPE)


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    command: Sequence[str] = ("redraft", "learn", *arguments, "--folder", str(tmp_path / "shop"))
    monkeypatch.setattr(sys, "argv", list(command))
    return main.main()


def test_the_steps_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, monkeypatch, "run", "--recipe", str(tmp_path / "tiny.toml")) == 0
    printed = capsys.readouterr().out
    assert " exercises, in " in printed
    assert "Trained the adapter" in printed
    assert "trained kinds of rules: pass " in printed
    assert "verdict: reject\n" in printed

    [record] = read_runs(tmp_path / "shop")
    assert (record.state, record.step, record.recipe) == ("ended", "exam", "tiny")
    assert str(record.adapter) in printed
    assert record.decision == "reject"

    assert run(tmp_path, monkeypatch, "promote") == 1
    assert "is not promoted: the gate's verdict is" in capsys.readouterr().err
    assert run(tmp_path, monkeypatch, "promote", "--force") == 0
    capsys.readouterr()
    assert run(tmp_path, monkeypatch, "list") == 0
    assert capsys.readouterr().out.rstrip().endswith("serves")
    assert run(tmp_path, monkeypatch, "merge") == 0
    assert f"Serve it with REDRAFT_MODEL={tmp_path}/shop/merged/{record.adapter}" in capsys.readouterr().out
    assert run(tmp_path, monkeypatch, "merge") == 1
    assert f"Cannot merge: {tmp_path}/shop/merged/{record.adapter} exists already" in capsys.readouterr().err
    assert run(tmp_path, monkeypatch, "export", "--to", "openai") == 0
    assert '"messages":[{"role":"user"' in capsys.readouterr().out
    assert run(tmp_path, monkeypatch, "exam") == 1
    assert f"{record.adapter} serves already" in capsys.readouterr().err
    assert run(tmp_path, monkeypatch, "rollback") == 0
    assert "the base alone serves" in capsys.readouterr().out
    other = add_adapter(Registry(tmp_path / "shop"), tmp_path, "other")
    assert run(tmp_path, monkeypatch, "promote", other, "--force") == 0
    assert run(tmp_path, monkeypatch, "exam", str(record.adapter)) == 0
    assert f"{record.adapter} against {other}, attempt 2" in capsys.readouterr().out


def test_a_seed_replaces_those_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path, monkeypatch, "run", "--recipe", str(tmp_path / "tiny.toml"), "--seed", "3") == 0

    prompts = read_lines(tmp_path / "shop/prompts.jsonl", Prompt)
    assert list(prompts) == list(make_prompts(300, seed=3)) != list(make_prompts(300))
    [manifest] = Registry(tmp_path / "shop").list()
    assert (manifest.recipe.practice.seed, manifest.recipe.training.seed) == (3, 3)


async def test_a_run_that_a_service_has_started_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.learning.process.find_spec", lambda name: object())
    shop, fake_learn = tmp_path / "shop", Path(__file__).with_name("fake_learn.py")
    launcher = Launcher(shop, ("env", f"PYTHONPATH={ROOT}", sys.executable, str(fake_learn)))
    begun = await launcher.start("quick", ["practice"])
    output = shop / "runs" / begun.id / OUTPUT
    try:
        async with asyncio.timeout(60):
            while "Starting the engine" not in await asyncio.to_thread(output.read_text):
                await asyncio.sleep(0.05)
        at_work = await launcher.get(begun.id)
        cancelled = await launcher.cancel(begun.id, 30)
    finally:
        await launcher.close()

    assert (begun.step, at_work.state, at_work.step, at_work.recipe) == (None, "running", "collect", "quick")
    assert (cancelled.state, cancelled.step, cancelled.error) == ("cancelled", "collect", None)
    assert output.read_text().splitlines() == [
        "Starting the engine …",
        "The engine has ended",
        "Cannot run: it was cancelled",
    ]


async def keep_traces(store: Path) -> list[str]:
    """Keep traces of two models in a store, each with a text that follows a rule, and return their ids."""
    document = {
        **make_document([candidate("c0", "We know it well.", token_ids=[1])]),
        "request": {},
        "evaluators": [{"type": "length", "unit": "words", "min": 2}],
    }
    other, third = (
        {**document, "prompts": [[{"role": "user", "content": content, "images": 0}]]}
        for content in ("Say what you know.", "And what is known of the sea?")
    )
    made = [make_trace(document, model="base"), make_trace(other, model="another"), make_trace(third, caller="ben")]
    async with trace_store(store) as opened:
        for trace in made:
            await opened.add(trace)
    return [trace.summary.id for trace in made]


def test_lessons_come_from_stored_traces_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store.db"
    monkeypatch.setenv("REDRAFT_STORE", str(store))
    first, *_ = asyncio.run(keep_traces(store))
    assert run(tmp_path, monkeypatch, "collect", "--from-store", "--trust", "ann") == 0
    printed = capsys.readouterr().out
    assert "Took texts for 3 prompts from stored traces." in printed
    assert "1 traces of another model, another: their texts are tokenized again" in printed
    assert "each of ben gives at most 5% of the lessons" in printed

    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "What is known?", "completion": "All of it is."}\n')
    assert run(tmp_path, monkeypatch, "collect", "--from", str(rows)) == 0
    assert "Took texts for 1 prompts from 1 files." in capsys.readouterr().out
    assert run(tmp_path, monkeypatch, "lessons") == 0
    printed = capsys.readouterr().out
    assert "3 best texts, 0 pairs" in printed
    assert "1 lessons left out: more than 5% from one caller" in printed

    with (tmp_path / "tiny.toml").open("r+") as recipe:
        stated = recipe.read().replace("least_texts = 5", "least_texts = 2")
        recipe.seek(0)
        recipe.write(stated)
    assert run(tmp_path, monkeypatch, "train", "--recipe", str(tmp_path / "tiny.toml")) == 0
    assert run(tmp_path, monkeypatch, "withdraw", first) == 0
    assert "Adapters that were marked: 1" in capsys.readouterr().out
    assert run(tmp_path, monkeypatch, "list") == 0
    assert capsys.readouterr().out.rstrip().endswith("withdrawn: 1 of 2 traces")
    assert run(tmp_path, monkeypatch, "lessons") == 0
    assert "2 best texts, 0 pairs" in capsys.readouterr().out

    monkeypatch.delenv("REDRAFT_STORE")
    assert run(tmp_path, monkeypatch, "lessons") == 1
    assert "REDRAFT_STORE names no database" in capsys.readouterr().err


def test_a_broken_row_and_an_empty_store_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Well?"}\n')
    assert run(tmp_path, monkeypatch, "collect", "--from", str(rows)) == 1
    assert f"Cannot collect: {rows}, line 1: it has none of these" in capsys.readouterr().err
    assert run(tmp_path, monkeypatch, "collect", "--from-store") == 1
    assert "Cannot collect: REDRAFT_STORE names no database" in capsys.readouterr().err
    monkeypatch.setenv("REDRAFT_STORE", str(tmp_path / "none.db"))
    assert run(tmp_path, monkeypatch, "collect", "--from-store") == 1
    assert "Cannot collect: the database cannot be opened" in capsys.readouterr().err


def test_a_canary_is_started_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shop").mkdir()
    registry = Registry(tmp_path / "shop")
    digest = add_adapter(registry, registry.folder, "one", "promote")

    assert run(tmp_path, monkeypatch, "canary", "--share", "0.5", "--promote") == 0
    assert f"{digest} writes every second first draft for 50% of the requests" in capsys.readouterr().out
    assert (canary := registry.canaries.running) is not None
    assert (canary.candidate, canary.share, canary.promotes) == (digest, 0.5, True)
    assert run(tmp_path, monkeypatch, "list") == 0
    assert capsys.readouterr().out.rstrip().endswith("canary runs: won 0 and lost 0 of 0 trials")
    assert run(tmp_path, monkeypatch, "canary", digest) == 1
    assert f"the canary of {digest} runs: stop it first" in capsys.readouterr().err
    assert run(tmp_path, monkeypatch, "canary", "--stop") == 0
    assert f"the canary of {digest} has ended" in capsys.readouterr().out
    assert run(tmp_path, monkeypatch, "canary", "--stop") == 1
    assert "no canary runs" in capsys.readouterr().err
    for share in ("0", "1.5", "half"):
        with pytest.raises(SystemExit):
            run(tmp_path, monkeypatch, "canary", "--share", share)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lessons"], "Cannot lessons: nothing was collected in"),
        (["train"], "Cannot train: there are no lessons yet"),
        (["exam"], "Cannot exam: there is no adapter yet"),
        (["rollback"], "Cannot rollback: nothing was promoted"),
        (["collect", "--recipe", "slow"], "Cannot collect: slow is neither a recipe (full, grpo, quick) nor a file"),
    ],
)
def test_what_cannot_be_done_has_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    assert run(tmp_path, monkeypatch, *arguments) == 1
    assert says in capsys.readouterr().err


def test_a_damaged_adapter_is_listed_and_hinders_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(tmp_path / "shop")
    whole, damaged = (add_adapter(registry, tmp_path, name, "promote") for name in ("one", "two"))
    (tmp_path / "shop/adapters" / damaged / "manifest.json").write_text("{")

    assert run(tmp_path, monkeypatch, "list") == 0
    shown = capsys.readouterr().out
    assert f"{whole}  " in shown
    assert f"{damaged}  damaged: " in shown
    assert run(tmp_path, monkeypatch, "promote") == 0
    assert registry.current == whole


@pytest.mark.parametrize("seed", ["-1", "x", "1.5", ""])
def test_a_seed_that_is_not_a_number_has_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seed: str
) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path, monkeypatch, "train", f"--seed={seed}")
    assert "a seed is a whole number that is not negative" in capsys.readouterr().err


def test_a_remote_model_cannot_learn_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDRAFT_ENGINE", "scripted")
    assert run(tmp_path, monkeypatch, "list") == 1
    assert "adapters need the engine vllm" in capsys.readouterr().err


def test_neither_service_nor_command_imports_what_trains() -> None:
    program = (
        "import sys, service.app, service.cli.main\n"
        "print({'trl', 'peft', 'datasets', 'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "set()\n", done.stderr
