"""What a calibration is kept under: the judge's weights, its prompts, and how its answers become a score."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from service.tasks.task import Task

SCORING = 1
"""Raise it when the way from a judge's answers to its score changes, so that nothing measured before is used."""
SAMPLES = 64
"""How many pieces of a file of weights are read: training changes all of it, so that a few tell it from any other."""
SAMPLE_BYTES = 65_536
WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt")
DESCRIBED_BY = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "adapter_config.json")


def judge_digest(weights: str, task: Task, *, both_directions: bool = False) -> str:
    """The digest of a judge. ``weights``: their digest, or for a remote model where it is. ``task``: whose prompts and
    criteria the judge uses unless a task or a request has its own. ``both_directions``: whether its answers are named
    in both orders."""
    prompts = task.prompts
    asked = [
        prompts.render("show", candidate="{candidate}", fence="{fence}"),
        prompts.render("rate", question="{question}"),
        *([prompts.render("rate_reversed", question="{question}")] if both_directions else []),
        prompts.render("rate_prefill"),
    ]
    criteria = [asdict(line) for line in task.criteria]
    known = {"weights": weights, "prompts": asked, "criteria": criteria, "scoring": SCORING}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]


def digest_of_folders(folders: Sequence[Path]) -> str:
    """The digest of a model in a folder and of the adapters on it: of small files whole, of weights by samples.

    It takes well under a second, whatever the model's size. OSError if a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in _model_files(folders):
        size = path.stat().st_size
        digest.update(f"{path.name}\n{size}\n".encode())
        for piece in _pieces(path, size):
            digest.update(piece)
    return digest.hexdigest()


def _model_files(folders: Iterable[Path]) -> Iterable[Path]:
    for folder in folders:
        yield from sorted(path for path in folder.iterdir() if path.suffix in WEIGHTS or path.name in DESCRIBED_BY)


def _pieces(path: Path, size: int) -> Iterable[bytes]:
    with path.open("rb") as stream:
        if size <= SAMPLES * SAMPLE_BYTES:
            yield stream.read()
            return
        for number in range(SAMPLES):
            stream.seek(number * (size - SAMPLE_BYTES) // (SAMPLES - 1))
            yield stream.read(SAMPLE_BYTES)
