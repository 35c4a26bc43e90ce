"""The CPU image, built by buildah on a Debian base, and containers of it, run by podman and runc.

Neither needs a daemon or a registry. Both keep what they make in a folder of their own.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness.servers import free_port
from tests.deploy.commands import ROOT, run

BASE = "localhost/base:check"
IMAGE = "localhost/redraft-cpu:check"
BUILD_SECONDS = 1200


@dataclass(frozen=True)
class Storage:
    """Where images and containers are, and what is asked of them."""

    folder: Path

    def buildah(self, *arguments: str | Path, seconds: float = 60) -> str:
        return run("buildah", *self._places(), *arguments, seconds=seconds)

    def podman(self, *arguments: str | Path, seconds: float = 60) -> str:
        return run(*self._podman(), *arguments, seconds=seconds)

    def start(self, log: Path, *arguments: str) -> "subprocess.Popen[bytes]":
        """A container in the foreground; what it says goes to the log."""
        with log.open("wb") as file:
            return subprocess.Popen([*self._podman(), "run", *arguments], stdout=file, stderr=subprocess.STDOUT)

    def inspected(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.podman("image", "inspect", IMAGE))[0]
        return found

    def _podman(self) -> list[str]:
        return ["podman", *self._places(), "--runtime=runc", "--cgroup-manager=cgroupfs", "--events-backend=none"]

    def _places(self) -> list[str]:
        return [f"--root={self.folder}/images", f"--runroot={self.folder}/run"]


def build(storage: Storage) -> None:
    """Make a base as Debian's packages are, with Python alone, and the CPU image on it."""
    base = storage.folder / "base.tar"
    run("mmdebstrap", "--variant=minbase", "--include=python3-venv,ca-certificates", "bookworm", base, seconds=300)
    scratch = storage.buildah("from", "scratch").strip()
    storage.buildah("add", scratch, base, "/", seconds=300)
    storage.buildah("commit", "--rm", scratch, BASE, seconds=300)
    base.unlink()
    configuration = storage.folder / "pip.conf"
    configuration.write_text(pip_configuration())
    storage.buildah(
        *("build", "--isolation=chroot", "--pull-never", "--format=docker", "--target=cpu"),
        *(f"--build-arg=BASE_IMAGE={BASE}", "--build-arg=REVISION=checked"),
        f"--secret=id=pip.conf,src={configuration}",
        *(f"--volume={path}:{path}:ro" for path in named_folders(configuration.read_text())),
        *(f"--tag={IMAGE}", ROOT),
        seconds=BUILD_SECONDS,
    )


def pip_configuration() -> str:
    """Where pip finds packages on this machine, by its files and its environment, as one file."""
    listed = run(sys.executable, "-m", "pip", "config", "list")
    settings = (line.partition("=") for line in listed.splitlines())
    pairs = {name.rpartition(".")[2]: ast.literal_eval(value).replace("\n", "\n\t") for name, _, value in settings}
    return "".join(["[global]\n", *(f"{name} = {value}\n" for name, value in pairs.items())])


def named_folders(configuration: str) -> Sequence[Path]:
    """The folders on this machine that the configuration names, for the build to see. A local index is called simple,
    and has its files beside it."""
    paths = {Path(path) for path in re.findall(r"(?<![\w:/])(?:file://)?(/[^\s,]+)", configuration)}
    found = {path.parent if path.is_file() or path.name == "simple" else path for path in paths if path.exists()}
    return sorted(found)


@dataclass(frozen=True)
class Container:
    """A container as compose would run it, on loopback."""

    storage: Storage
    process: "subprocess.Popen[bytes]"
    name: str
    url: str
    log: Path

    def shell(self, command: str) -> str:
        """What the command prints inside, as the container's user."""
        return self.storage.podman("exec", self.name, "sh", "-euc", command)

    def said(self) -> str:
        return self.log.read_text()

    def signal(self, name: str) -> None:
        self.storage.podman("kill", f"--signal={name}", self.name)


@contextmanager
def running(
    storage: Storage, name: str, *options: str, arguments: Sequence[str] = (), port: int | None = None
) -> Iterator[Container]:
    """``options`` are podman's, ``arguments`` those of the process; the port is any that is free."""
    port = port or free_port()
    log = storage.folder / f"{name}.log"
    process = storage.start(
        log,
        *(f"--name={name}", "--network=host", f"--env=REDRAFT_PORT={port}", "--env=REDRAFT_HOST=127.0.0.1"),
        *("--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp:size=256m,mode=1777", "--shm-size=256m"),
        *("--cap-drop=all", "--security-opt=no-new-privileges"),
        *("--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"),  # podman's own are more than a machine may allow
        "--no-healthcheck",  # podman has systemd do them
        *options,
        IMAGE,
        *arguments,
    )
    try:
        yield Container(storage, process, name, f"http://127.0.0.1:{port}", log)
    finally:
        storage.podman("rm", "--force", "--ignore", "--volumes", "--time=0", name)
        process.wait(30)
