"""The tools that check what is deployed, run as a person would run them."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def compose(files: Sequence[str], profiles: Sequence[str], *arguments: str) -> str:
    flags = [*(f"--file={file}" for file in files), *(f"--profile={profile}" for profile in profiles)]
    return run(tool("docker-compose"), *flags, "config", *arguments)


def services(files: Sequence[str], profiles: Sequence[str]) -> Mapping[str, Any]:
    """The services of compose files, with everything merged and filled in."""
    found: dict[str, Any] = json.loads(compose(files, profiles, "--format=json"))["services"]
    return found


_PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
for arguments in json.loads(sys.argv[1]):
    make_arg_parser(FlexibleArgumentParser()).parse_args(arguments)
"""


def parse_by_vllm(*servers: Sequence[str]) -> None:
    """AssertionError if vLLM's server of the locked version does not take one of these lists of arguments."""
    run(sys.executable, "-c", _PARSE, json.dumps(servers))


def tool(name: str) -> str:
    """A tool that came with requirements/deploy.lock."""
    return str(Path(sys.executable).with_name(name))


def run(*command: str | Path, seconds: float = 60) -> str:
    """What the command prints. AssertionError with all that it said if it fails."""
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout
