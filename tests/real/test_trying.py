"""Training on texts, pairs and rewards by the command line, with the real engine as the sampler. It needs what
requirements/learn.lock pins, which `make test` installs."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from service.learning.collected import write_lines
from service.learning.exercises import Exercise
from service.learning.lessons import BestText, LessonPair
from service.learning.manifest import digest_of_evaluators
from service.learning.registry import Registry, digest_of_adapter
from service.learning.runs import read_runs
from service.learning.trainer import EXERCISES, GREEDY, PAIRS, TEXTS
from service.learning.workshop import EVALUATORS
from service.whole_files import write_whole
from tests.learning.made import prompt

pytestmark = pytest.mark.skipif(find_spec("trl") is None, reason="the extra learn is not installed")

STEPS, MOST_TOKENS = 3, 12
TRYING = f"""
[training.trying]
steps = {STEPS}
exercises = 2
samples = 4
temperature = 1.0
max_tokens = {MOST_TOKENS}
rate = 1e-4
kl = 0.03

[examining]"""
FEW_WORDS = {"type": "length", "unit": "words", "max": 6}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The recipe quick with rewards after texts and pairs."""
    text = files("service.learning").joinpath("recipes/quick.toml").read_text()
    text = text.replace("least_texts = 30", "least_texts = 3").replace("pairs_epochs = 0", "pairs_epochs = 1")
    text = text.replace("\n[examining]", TRYING)
    (tmp_path / "tries.toml").write_text(text)
    return tmp_path / "tries.toml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of learning with lessons."""
    lessons = tmp_path / "shop/lessons"
    prompts = [prompt(topic, f"Name one thing about {topic}.", FEW_WORDS) for topic in ("salt", "rain", "bread")]
    texts = [BestText(prompt=each, text="It is good.", source="repair") for each in prompts]
    pairs = [
        LessonPair(prompt=each, chosen="It is good.", rejected="It is very good for all of us.", relation="refinement")
        for each in prompts
    ]
    write_lines(lessons / "made" / TEXTS, texts)
    write_lines(lessons / "made" / PAIRS, pairs)
    write_lines(lessons / "made" / EXERCISES, [Exercise(prompt=each, passed=0.5, usual=30) for each in prompts])
    write_whole(lessons / "made" / EVALUATORS, digest_of_evaluators())
    write_whole(lessons / "latest", "made\n")
    return tmp_path / "shop"


@asynccontextmanager
async def training(folder: Path, recipe: Path) -> AsyncIterator[tuple[Process, asyncio.StreamReader]]:
    """The command at work, with what it says of its steps."""
    arguments = ("-m", "service", "learn", "train", "--recipe", str(recipe), "--folder", str(folder))
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=PIPE)
    assert process.stderr is not None
    try:
        yield process, process.stderr
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_training_that_is_killed_is_done_again_and_learns_by_rewards(folder: Path, recipe: Path) -> None:
    async with training(folder, recipe) as (process, said):
        while b"exercises: step 1 of" not in (line := await said.readline()):
            assert line, "it ended before its first step"
        processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.kill()
        _, alive = await asyncio.to_thread(psutil.wait_procs, processes, timeout=60)

    assert len(processes) > 2
    assert alive == [], "the trainer and its engine end with the command"
    assert [(run.state, run.error) for run in read_runs(folder)] == [("failed", "its process has ended")]
    assert Registry(folder).list() == []

    async with training(folder, recipe) as (process, said):
        lines = (await said.read()).decode().splitlines()
        assert await process.wait() == 0, lines

    stages = [line.split(":")[0] for line in lines if ": step " in line]
    assert stages == ["texts"] * 2 + ["pairs"] + ["exercises"] * STEPS
    [manifest] = Registry(folder).list()
    tried = [step for step in manifest.log if "reward" in step]
    assert len(tried) == STEPS
    for step in tried:
        assert 0.0 <= step["reward"] <= 1.0
        assert step["completions/max_length"] <= MOST_TOKENS + 1
    assert tried[0]["kl"] == pytest.approx(0.0, abs=1e-4)
    assert any(step["grad_norm"] > 0.0 for step in tried)
    assert (manifest.texts, manifest.pairs, manifest.exercises, len(manifest.prompts)) == (3, 3, 3, 3)
    assert digest_of_adapter(folder / "adapters" / manifest.adapter) == manifest.adapter
    assert len(json.loads((folder / "adapters" / manifest.adapter / GREEDY).read_text())) == 3
