"""What must stand in no file that is kept: a secret, an image that moves, the host of a package registry.

These need no tools, so the default suite runs them too.
"""

import re
from pathlib import Path

import pytest

from tests.deploy.commands import ROOT, run

SECRETS = {
    "a key of AWS": r"\bAKIA[0-9A-Z]{16}\b",
    "a token of GitHub": r"\bgh[pousr]_[A-Za-z0-9]{30,}",
    "a token of Hugging Face": r"\bhf_[A-Za-z0-9]{30,}",
    "a key of OpenAI": r"\bsk-[A-Za-z0-9_-]{32,}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
}
MOVING = {
    "an image that moves": r"(?:^\s*(?:FROM|image:|newTag:)\s[^#\n]*|\w):latest\b",
    "an image without a tag": r"^FROM (?!\$)(?!(?:build|cpu|gpu)\b)[^\s:@]+(?:\s|$)",
}
# PyTorch's index stands in the Makefile and the Dockerfile: no registry has the CPU build of torch.
REGISTRIES = {
    "a package registry": r"\b(?:pypi|pythonhosted|npmjs|deb\.debian|golang|rubygems)\.(?:com|org)\b|\bcrates\.io\b",
}
RULES = SECRETS | MOVING | REGISTRIES
EXAMPLES = {
    "a key of AWS": "AKIA" + "A1" * 8,
    "a token of GitHub": "ghp_" + "a1" * 18,
    "a token of Hugging Face": "HF_TOKEN=hf_" + "aB" * 17,
    "a key of OpenAI": "sk-" + "proj1-" * 8,
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "an image that moves": "    image: grafana/grafana:" + "latest",
    "an image without a tag": "FROM python" + " AS build",
    "a package registry": "https://" + "pypi" + ".org/simple",
}


def breaches(text: str) -> set[str]:
    """The names of the rules that the text breaks."""
    return {name for name, pattern in RULES.items() if re.search(pattern, text, re.MULTILINE)}


def tracked() -> list[Path]:
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_holds_what_it_must_not() -> None:
    files = tracked()
    assert ROOT / "Dockerfile" in files
    found = {path: breaches(path.read_text(encoding="utf-8", errors="replace")) for path in files}
    assert {str(path): names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_finds_what_it_is_for(rule: str) -> None:
    assert breaches(EXAMPLES[rule]) == {rule}
