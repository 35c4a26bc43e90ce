"""A judge's digest changes with its weights, its prompts and the way of scoring, and with nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from service.calibration import identity
from service.calibration.identity import digest_of_folders, judge_digest
from service.tasks.task import load_tasks

TASK = load_tasks()["general"]
LARGE = identity.SAMPLES * identity.SAMPLE_BYTES * 2


def model(folder: Path, weights: bytes = b"weights", config: str = "{}") -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(config)
    return folder


def test_a_copy_has_the_same_digest(tmp_path: Path) -> None:
    first, copy = model(tmp_path / "first"), model(tmp_path / "copy")
    (copy / "README.md").write_text("notes")

    assert digest_of_folders([first]) == digest_of_folders([copy])


def test_other_weights_or_another_configuration_have_another(tmp_path: Path) -> None:
    folders = [
        model(tmp_path / "a"),
        model(tmp_path / "b", b"trained"),
        model(tmp_path / "c", config='{"a": 1}'),
        model(tmp_path / "d", b""),
    ]

    assert len({digest_of_folders([folder]) for folder in folders}) == 4


def test_an_adapter_makes_another_judge(tmp_path: Path) -> None:
    base, adapter = model(tmp_path / "base"), model(tmp_path / "adapter", b"more")

    assert digest_of_folders([base]) != digest_of_folders([base, adapter])


def test_weights_that_were_trained_are_told_apart_by_samples(tmp_path: Path) -> None:
    first = model(tmp_path / "first", bytes(LARGE))
    trained = model(tmp_path / "trained", b"\1" * LARGE)
    end = model(tmp_path / "end", bytes(LARGE - 1) + b"\1")

    assert len({digest_of_folders([folder]) for folder in (first, trained, end)}) == 3


def test_the_prompts_and_the_rubric_belong_to_the_judge() -> None:
    other_rubric = replace(TASK, criteria=TASK.criteria[:1])

    assert judge_digest("w", TASK) == judge_digest("w", TASK)
    assert len({judge_digest("w", TASK), judge_digest("v", TASK), judge_digest("w", other_rubric)}) == 3


def test_another_way_of_scoring_makes_another_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    before = judge_digest("w", TASK)
    monkeypatch.setattr(identity, "SCORING", identity.SCORING + 1)

    assert judge_digest("w", TASK) != before
