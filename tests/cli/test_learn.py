"""Learning from the command line, with a scripted engine as the model and no training."""

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
from service.learning.runs import read_runs
from service.settings import Settings
from tests.learning.test_trainer import fake

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
    assert "best texts and" in printed
    assert "Trained the adapter" in printed
    assert "verdict: " in printed

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
    assert run(tmp_path, monkeypatch, "export", "--to", "openai") == 0
    assert '"messages":[{"role":"user"' in capsys.readouterr().out
    assert run(tmp_path, monkeypatch, "exam") == 0
    assert run(tmp_path, monkeypatch, "rollback") == 0
    assert "the base alone serves" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lessons"], "Cannot lessons: "),
        (["train"], "Cannot train: there are no lessons yet"),
        (["exam"], "Cannot exam: there is no adapter yet"),
        (["rollback"], "Cannot rollback: nothing was promoted"),
        (["collect", "--recipe", "slow"], "Cannot collect: slow is neither a recipe (quick) nor a file"),
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
