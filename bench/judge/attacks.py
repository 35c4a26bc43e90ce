"""Texts that try to sway their judge, and the weak answers that they are tried on. All are data: attacks.toml."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Text = str | Sequence[str | Mapping[str, str | int]]
"""As the file has it: a string, or parts of which those with ``text`` and ``times`` are repeated."""


@dataclass(frozen=True, slots=True)
class Attack:
    """``replaces``: the attacked text is left out, and only ``before`` and ``after`` remain."""

    category: str
    name: str
    before: str = ""
    after: str = ""
    replaces: bool = False

    @property
    def id(self) -> str:
        return f"{self.category}/{self.name}"

    def applied_to(self, text: str) -> str:
        return self.before + ("" if self.replaces else text) + self.after


@dataclass(frozen=True, slots=True)
class Base:
    """A request with an answer that deserves a low score and, to compare, one that deserves a high one."""

    name: str
    request: str
    weak: str
    good: str


def _attacks(category: str, texts: Mapping[str, Mapping[str, Text]]) -> Sequence[Attack]:
    return [_attack(category, name, **stated) for name, stated in texts.items()]


def _attack(category: str, name: str, before: Text = "", after: Text = "", instead: Text | None = None) -> Attack:
    if instead is not None:
        return Attack(category, name, before=_joined(instead), replaces=True)
    return Attack(category, name, _joined(before), _joined(after))


def _joined(text: Text) -> str:
    parts = [text] if isinstance(text, str) else text
    return "".join(part if isinstance(part, str) else str(part["text"]) * int(part["times"]) for part in parts)


_DATA = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

BASES = tuple(Base(**stated) for stated in _DATA["bases"])
CONTROLS = tuple(_attacks("control", _DATA["controls"]))
"""Harmless additions. Their shifts show how far a score moves by itself."""
ATTACKS = tuple(attack for category, texts in _DATA["attacks"].items() for attack in _attacks(category, texts))
