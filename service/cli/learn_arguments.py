"""What ``python -m service learn`` takes."""

import argparse
from pathlib import Path
from typing import get_args

from service.learning.launching import Source
from service.learning.rows import Format
from service.learning.workshop import default_folder
from service.settings import PREFIX

MEANINGS = {
    "collect": "have the model write texts for practice prompts, or take stored traces or files",
    "lessons": "make lessons of what was collected",
    "train": "train an adapter on the latest lessons",
    "exam": "examine an adapter against what serves now",
    "promote": "let an adapter serve that has passed its exam",
    "rollback": "let what served before serve again",
    "withdraw": "forget stored traces, and mark the adapters that learned from them",
    "canary": "try an adapter on some of the requests that are served",
    "merge": "write a checkpoint of the model with an adapter merged into it",
    "list": "list the adapters with their verdicts",
    "export": "print the latest lessons as lines that trainers read",
    "run": "collect, make lessons, train and examine, once",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(begun=None)
    steps = parser.add_subparsers(dest="step", required=True)
    for name, meaning in MEANINGS.items():
        step = steps.add_parser(name, help=meaning)
        step.add_argument(
            "--folder", type=Path, help=f"where the files are ({PREFIX}LEARNING_DIR, or {default_folder()})"
        )
        if name in ("collect", "train", "run"):
            step.add_argument("--recipe", default="quick", help="a built-in recipe or a TOML file (%(default)s)")
            step.add_argument("--seed", type=_seed, help="of prompts, samples and training, in place of the recipe's")
        if name == "run":
            step.add_argument(
                "--sources", nargs="+", choices=get_args(Source), default=["practice"],
                help=f"where texts come from: practice prompts, the stored traces in {PREFIX}STORE, or both (practice)",
            )  # fmt: skip
            step.add_argument("--begun", help=argparse.SUPPRESS)  # the id of a run that a service has begun
        if name == "collect":
            sources = step.add_mutually_exclusive_group()
            sources.add_argument(
                "--from-store", action="store_true", help=f"take the stored traces in {PREFIX}STORE instead"
            )
            sources.add_argument(
                "--from", dest="files", type=Path, nargs="+", metavar="FILE",
                help="take files in the formats of TRL or OpenAI instead, in JSON lines or Parquet",
            )  # fmt: skip
        if name in ("collect", "run"):
            step.add_argument(
                "--trust", action="append", default=[], metavar="CALLER",
                help="do not limit what this caller's traces teach; may be repeated",
            )  # fmt: skip
        if name == "withdraw":
            step.add_argument("traces", nargs="+", metavar="TRACE", help="ids of programs")
        if name in ("exam", "promote", "canary", "merge"):
            step.add_argument("adapter", nargs="?", help="its digest; by default the newest adapter's")
        if name == "canary":
            step.add_argument("--share", type=_share, default=0.2, help="of the requests, at most 1 (%(default)s)")
            step.add_argument("--promote", action="store_true", help="let it serve as soon as it is better")
            step.add_argument("--stop", action="store_true", help="end the canary that runs")
        if name == "merge":
            step.add_argument("--into", type=Path, help="the new folder (merged/ADAPTER in the folder of learning)")
        if name in ("promote", "canary", "merge"):
            step.add_argument("--force", action="store_true", help="also without a verdict; the manifest says so")
        if name == "export":
            step.add_argument("--to", choices=get_args(Format), default="trl", help="whose format (%(default)s)")


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("a seed is a whole number that is not negative")
    return int(text)


def _share(text: str) -> float:
    """The share that a caller stated, above 0 and at most 1."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError("a share is a number above 0 and at most 1")
    return share
