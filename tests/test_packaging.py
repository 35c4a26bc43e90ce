"""What the package depends on is enough: for the client alone, and with the extra ``server`` for the service.

Where only the client is installed, the command says what else it needs.
"""

import runpy
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(program: str, missing: Iterable[str] = ()) -> "subprocess.CompletedProcess[str]":
    """Run a program that cannot import the ``missing`` modules."""
    program = f"import sys\nsys.modules.update(dict.fromkeys({sorted(missing)}))\n{program}"
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)


def modules_without(*requirements: str) -> set[str]:
    """The modules of all installed packages that do not come with these requirements."""
    packages = {canonicalize_name(found.name): {"requires_dist": found.requires or []} for found in distributions()}
    reachable = runpy.run_path(str(ROOT / "requirements/lock.py"))["reachable"]
    brought = reachable([Requirement(line) for line in requirements], packages)
    owners = packages_distributions()
    return {name for name in owners if brought.isdisjoint(map(canonicalize_name, owners[name]))}


def test_the_client_needs_only_the_dependencies() -> None:
    missing = {"service", *modules_without(*PROJECT["dependencies"])}

    assert run("import redraft; redraft.Redraft().close()", missing).stderr == ""


def test_the_service_needs_only_the_extra_server() -> None:
    missing = modules_without(*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["server"])
    program = (
        "import service.cli.main\n"
        "from service.app import create_app\n"
        "from service.settings import Settings\n"
        "create_app(Settings(engine='scripted'))"
    )

    assert run(program, missing).stderr == ""


def test_the_wheel_has_every_file_of_the_page(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)

    [wheel] = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = {str(file.relative_to(ROOT)) for file in (ROOT / "service/web/files").rglob("*") if file.is_file()}
    assert "service/web/files/index.html" in files
    assert files <= packed


def run_command(missing: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as its script does, where a module is missing."""
    module, _, function = PROJECT["scripts"]["redraft"].partition(":")
    return run(
        f"from {module} import {function}\nsys.argv = ['redraft', 'settings']\nsys.exit({function}())", [missing]
    )


@pytest.mark.parametrize("missing", ["fastapi", "pydantic_settings", "rich", "uvicorn"])
def test_without_the_extra_server_the_command_says_what_to_install(missing: str) -> None:
    done = run_command(missing)

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"Redraft's command needs {missing}, which is not installed: pip install 'redraft[server]'\n"


def test_with_it_the_command_runs() -> None:
    assert run_command("vllm").stdout.startswith("REDRAFT_")


def test_a_missing_module_of_its_own_is_a_bug_and_shows_its_traceback() -> None:
    assert "ModuleNotFoundError: import of service.settings halted" in run_command("service.settings").stderr
