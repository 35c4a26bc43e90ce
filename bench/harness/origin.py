"""Where a page's numbers come from: the model, the day and the commit."""

import subprocess
from datetime import date
from pathlib import Path

_FOLDER = Path(__file__).parent


def current_commit(folder: Path = _FOLDER) -> str:
    """The commit that is checked out, marked where files differ from it. CalledProcessError outside a repository."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607 - git is found by PATH, as everywhere
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return described.stdout.strip()


def origin(model: str, commit: str, made_on: date) -> str:
    """The sentence that says it."""
    return f"Model {model}, {made_on}, commit {commit}."
