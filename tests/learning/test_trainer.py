"""The training process may fail in any way: there is a sentence for it, and nothing is left behind."""

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from service.learning.exercises import Exercise
from service.learning.lessons import BestText
from service.learning.process import Progress
from service.learning.recipe import Training, load_recipe
from service.learning.trainer import ADAPTER, GREEDY, Trainer, TrainingFailed, refuse_few
from tests.learning.made import prompt


@pytest.fixture
def training() -> Training:
    return load_recipe("quick").training


def fake(how: str) -> Trainer:
    return Trainer([sys.executable, str(Path(__file__).with_name("fake_training.py")), how])


def lesson(number: int, *kinds: str) -> BestText:
    return BestText(prompt=prompt(f"{number}").model_copy(update={"kinds": kinds}), text="salt", source="free")


async def test_it_reports_its_steps_and_leaves_an_adapter(tmp_path: Path, training: Training) -> None:
    steps = list[Progress]()
    folder = await fake("works").train(tmp_path, tmp_path, training, tmp_path / "at", steps.append)

    assert [(step.stage, step.step, step.figures) for step in steps] == [("texts", 1, {"loss": 2.5})]
    assert (folder / ADAPTER).is_dir()
    assert (folder / GREEDY).is_file()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("fails", "the disk is full"),
        ("crashes", "ended with exit code 1, after it said: RuntimeError: out of luck"),
        ("dies", "ended by signal 9, after it said: a library says something"),
        ("leaves nothing", "left no adapter"),
    ],
)
async def test_a_failure_has_its_reason_and_leaves_nothing(
    tmp_path: Path, training: Training, how: str, reason: str
) -> None:
    with pytest.raises(TrainingFailed, match=reason):
        await fake(how).train(tmp_path, tmp_path, training, tmp_path / "at", lambda _: None)

    assert list((tmp_path / "at").iterdir()) == []


async def wait_for(path: Path) -> int:
    async with asyncio.timeout(60):
        while not (text := await asyncio.to_thread(lambda: path.read_text() if path.exists() else "")):
            await asyncio.sleep(0.05)
    return int(text)


async def test_a_process_that_hangs_is_killed_when_its_time_is_up(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.learning.trainer.GRACE_SECONDS", 5.0)
    short = training.model_copy(update={"seconds": 0.1})
    with pytest.raises(TrainingFailed, match="did not end within 5 seconds"):
        await fake("hangs").train(tmp_path, tmp_path, short, tmp_path / "at", lambda _: None)

    assert not psutil.pid_exists(int((tmp_path / "at/pid").read_text()))


async def test_a_cancelled_training_ends_its_process(tmp_path: Path, training: Training) -> None:
    task = asyncio.create_task(fake("hangs").train(tmp_path, tmp_path, training, tmp_path / "at", lambda _: None))
    pid = await wait_for(tmp_path / "at/pid")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not psutil.pid_exists(pid)
    assert [path.name for path in (tmp_path / "at").iterdir()] == ["pid"]


async def test_processes_that_it_has_started_end_with_it(tmp_path: Path, training: Training) -> None:
    with pytest.raises(TrainingFailed, match="ended by signal 9"):
        await fake("dies and leaves an engine").train(tmp_path, tmp_path, training, tmp_path / "at", lambda _: None)

    pid = int((tmp_path / "at/pid").read_text())
    async with asyncio.timeout(30):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.05)


async def test_what_a_killed_training_has_left_is_removed_by_the_next(tmp_path: Path, training: Training) -> None:
    left_over = tmp_path / "at/.training-of-yesterday/adapter"
    left_over.mkdir(parents=True)
    folder = await fake("works").train(tmp_path, tmp_path, training, tmp_path / "at", lambda _: None)

    assert list((tmp_path / "at").iterdir()) == [folder]


async def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.learning.process.find_spec", lambda name: None if name == "trl" else object())
    with pytest.raises(TrainingFailed, match=r"needs trl: pip install 'redraft\[learn\]'"):
        await Trainer().train(tmp_path, tmp_path, training, tmp_path, lambda _: None)


@pytest.mark.parametrize(
    ("lessons", "reason"),
    [
        ([], "there are no lessons"),
        ([lesson(1, "title")], "1 texts are too few"),
        ([lesson(number, "title") for number in range(50)], "all lessons are of one kind, title"),
    ],
)
def test_too_few_lessons_are_refused(training: Training, lessons: list[BestText], reason: str) -> None:
    with pytest.raises(TrainingFailed, match=reason):
        refuse_few(lessons, [], training)


def test_enough_lessons_of_several_kinds_are_not(training: Training) -> None:
    refuse_few([lesson(number, ("title", "quoted")[number % 2]) for number in range(50)], [], training)
    refuse_few([lesson(number, *(["title"] if number % 2 else [])) for number in range(50)], [], training)


def test_too_few_exercises_for_a_step_are_refused() -> None:
    training = load_recipe("grpo").training
    exercises = [Exercise(prompt=prompt(f"{number}"), passed=0.5, usual=100) for number in range(8)]
    texts = [lesson(number, ("title", "quoted")[number % 2]) for number in range(50)]

    refuse_few(texts, exercises, training)
    with pytest.raises(TrainingFailed, match="7 prompts are passed sometimes, and each step of the recipe tries 8"):
        refuse_few(texts, exercises[:-1], training)


def test_a_recipe_of_exercises_alone_needs_no_texts() -> None:
    training = load_recipe("grpo").training.model_copy(update={"texts_epochs": 0, "pairs_epochs": 0})
    refuse_few([], [Exercise(prompt=prompt(f"{number}"), passed=0.5, usual=100) for number in range(8)], training)
