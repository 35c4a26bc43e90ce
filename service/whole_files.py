"""Files that appear whole or not at all, also after a power cut."""

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all, also after a power cut. OSError if it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=aside_of(path.name), delete=False
    ) as aside:
        try:
            aside.write(text)
            aside.flush()
            os.fsync(aside.fileno())
        except BaseException:
            Path(aside.name).unlink()
            raise
    Path(aside.name).chmod(0o644)
    Path(aside.name).replace(path)


def aside_of(name: str) -> str:
    """The prefix of the temporary files that become this file. A process that is killed leaves one behind."""
    return f".{name}-"
