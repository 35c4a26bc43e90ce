"""The real training process, on a tiny model of random weights. It needs what requirements/learn.lock pins, which
`make test` installs."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from service.engines.local import bundled
from service.learning.collected import write_lines
from service.learning.lessons import BestText, LessonPair
from service.learning.merger import Merger
from service.learning.process import Progress
from service.learning.recipe import load_recipe
from service.learning.registry import digest_of_adapter
from service.learning.trainer import ADAPTER, GREEDY, PAIRS, TEXTS, Trainer, TrainingFailed
from tests.learning.made import prompt
from tests.support.adapters import make_merged

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(find_spec("trl") is None, reason="the extra learn is not installed"),
    pytest.mark.timeout(300),
]

TRAINING = load_recipe("quick").training.model_copy(update={"batch": 2, "texts_epochs": 1, "pairs_epochs": 1})

MAKE_MODEL = """
import sys
from transformers import LlamaConfig, LlamaForCausalLM
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
LlamaForCausalLM(LlamaConfig(vocab_size=49152, eos_token_id=2, **sizes)).save_pretrained(sys.argv[1])
"""

BREAK_MODEL = """
import sys
from safetensors.torch import load_file, save_file
weights = load_file(sys.argv[1])
next(iter(weights.values())).fill_(float("nan"))
save_file(weights, sys.argv[1], {"format": "pt"})
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    subprocess.run([sys.executable, "-c", MAKE_MODEL, folder], check=True, timeout=200)
    for path in bundled.prepare().glob("*token*"):
        shutil.copy(path, folder)
    for path in bundled.prepare().glob("chat_template*"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def lessons(tmp_path: Path) -> Path:
    prompts = [prompt(f"{number}", f"Write about {word}.") for number, word in enumerate(("salt", "rain"))]
    texts = [BestText(prompt=each, text="There is salt in it.", source="repair") for each in prompts]
    pairs = [
        LessonPair(prompt=each, chosen="There is salt in it.", rejected="There is none.", relation="siblings")
        for each in prompts
    ]
    write_lines(tmp_path / "lessons" / TEXTS, texts)
    write_lines(tmp_path / "lessons" / PAIRS, pairs)
    return tmp_path / "lessons"


async def test_both_stages_leave_an_adapter_that_vllm_takes(base: Path, lessons: Path, tmp_path: Path) -> None:
    steps = list[Progress]()
    weak = TRAINING.model_copy(update={"texts_epochs": 3, "strength": 0.01})  # the first step only warms up
    folder = await Trainer().train(base, lessons, weak, tmp_path / "at", steps.append)

    assert [step.stage for step in steps if step.step] == ["texts"] * 3 + ["pairs"]
    weights = load_file(folder / ADAPTER / "adapter_model.safetensors")
    changes = [float(np.abs(its).max()) for name, its in weights.items() if "lora_B" in name]
    assert 0.0 < max(changes) < TRAINING.texts_rate / 10, "a step changes a weight by about the rate"
    stated = json.loads((folder / ADAPTER / "adapter_config.json").read_text())
    assert (stated["r"], stated["lora_alpha"], stated["bias"], stated["use_dora"]) == (8, 16, "none", False)
    assert "lm_head" not in stated["target_modules"]
    assert digest_of_adapter(folder / ADAPTER)
    assert len(json.loads((folder / GREEDY).read_text())) == 2


async def test_the_loss_of_texts_is_taken_at_the_recipes_temperature(base: Path, lessons: Path, tmp_path: Path) -> None:
    """At twice the temperature, logits count half. So do gradients, where the model prefers no token yet."""
    norms = list[float]()
    for temperature in (0.7, 1.4):
        steps = list[Progress]()
        training = TRAINING.model_copy(update={"temperature": temperature, "pairs_epochs": 0})
        await Trainer().train(base, lessons, training, tmp_path / "at", steps.append)
        norms += [step.figures["grad_norm"] for step in steps if step.stage == "texts"]

    assert norms[0] == pytest.approx(2 * norms[1], rel=0.02)


@pytest.fixture
def strong(base: Path, tmp_path: Path) -> Path:
    """An adapter of random weights, which changes what the model predicts."""
    stated = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["v_proj", "o_proj"], "bias": "none"}
    draws = np.random.default_rng(1)
    weights = {
        f"base_model.model.model.layers.{layer}.self_attn.{name}.lora_{half}.weight": draws.standard_normal(
            (4, 32) if half == "A" else (32, 4)
        ).astype(np.float32)
        for layer in range(2)
        for name in ("v_proj", "o_proj")
        for half in "AB"
    }
    folder = tmp_path / "strong"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(stated))
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


def others_than_weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".safetensors"}


async def test_a_merged_checkpoint_predicts_what_the_base_with_the_adapter_does(
    base: Path, strong: Path, tmp_path: Path
) -> None:
    target = tmp_path / "merged/new"
    merged = await Merger().merge(base, strong, target, make_merged)

    assert merged.agreement.tokens > 4
    assert merged.agreement.same == 1.0
    assert merged.agreement.moved > 1e-3
    assert merged.agreement.off < merged.agreement.moved / 100
    before, after, adapter = (
        load_file(folder / name)
        for folder, name in (
            (base, "model.safetensors"), (target, "model.safetensors"), (strong, "adapter_model.safetensors")
        )
    )  # fmt: skip
    assert before.keys() == after.keys()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {
        f"model.layers.{layer}.self_attn.{name}.weight" for layer in range(2) for name in ("v_proj", "o_proj")
    }
    layer = "model.layers.1.self_attn.o_proj"
    low, high = (adapter[f"base_model.model.{layer}.lora_{half}.weight"] for half in "AB")
    np.testing.assert_allclose(after[f"{layer}.weight"], before[f"{layer}.weight"] + high @ low, atol=1e-5)
    kept = others_than_weights(base)
    assert "tokenizer.json" in kept
    assert kept.items() <= others_than_weights(target).items()


async def test_lessons_that_are_all_too_long_are_refused(base: Path, lessons: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="no lesson fits"):
        await Trainer().train(
            base, lessons, TRAINING.model_copy(update={"max_length": 5}), tmp_path / "at", lambda _: None
        )


@pytest.fixture
def broken(base: Path, tmp_path: Path) -> Path:
    """The model, with weights that are not numbers."""
    folder = tmp_path / "broken"
    shutil.copytree(base, folder)
    subprocess.run([sys.executable, "-c", BREAK_MODEL, folder / "model.safetensors"], check=True, timeout=200)
    return folder


async def test_weights_that_are_not_numbers_are_refused(broken: Path, lessons: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="not a number"):
        await Trainer().train(broken, lessons, TRAINING, tmp_path / "at", lambda _: None)

    assert list((tmp_path / "at").iterdir()) == []
