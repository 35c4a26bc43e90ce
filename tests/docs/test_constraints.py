"""docs/reference/constraints.md lists every rule of every verifier, with what becomes of it."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.constraints.algebra import Constraint, Unstated
from service.evaluators.base import Verifier
from service.evaluators.text.bounds import Bounds
from service.evaluators.text.format import _COUNTED, Format, Kind
from service.evaluators.text.keywords import Keywords, OneOf
from service.evaluators.text.language import Language
from service.evaluators.text.length import Length, Unit
from service.evaluators.text.number import Number
from service.evaluators.text.passages import EndsWith, ParagraphStarts, StartsWith
from service.evaluators.text.regex import Regex
from service.evaluators.text.schema import FollowsSchema

PAGE = Path(__file__).parents[2] / "docs/reference/constraints.md"
UNITS: Sequence[Unit] = ("characters", "words", "sentences", "paragraphs", "lines")
KINDS: Sequence[Kind] = Kind.__args__  # type: ignore[attr-defined]
ALWAYS_STATED: Sequence[Verifier] = [
    *(Length(unit=unit, max=40) for unit in UNITS),
    *(Length(unit=unit, min=2) for unit in UNITS),
    Length(unit="lines", min=1, max=1),
    Keywords(include=("sea",)),
    Keywords(exclude=("sea",)),
    Keywords(counts={"sea": Bounds(min=2)}),
    Keywords(counts={"sea": Bounds(max=0)}),
    Keywords(letters={",": Bounds(max=0)}),
    StartsWith(text="Dear"),
    EndsWith(text="end"),
    ParagraphStarts(paragraph=1, text="Dear"),
    ParagraphStarts(paragraph=2, text="Dear"),
    OneOf(options=("yes", "no")),
    OneOf(options=("yes", "no"), anywhere=True),
    FollowsSchema(schema={}),
    Keywords(letters={"!": Bounds(min=2)}),
    Regex(pattern="[0-9]", must_match=False),
    Regex(pattern="^rain"),
    *(Format(kind=kind) for kind in KINDS),
    *(Format(kind=kind, min=2) for kind in KINDS if kind in _COUNTED),
]
NEVER_STATED: Sequence[Verifier] = [Number(value=1), Language(code="en")]


def rows() -> dict[str, tuple[str, str]]:
    """What the page says of each rule: whether it is enforced, and the distortion."""
    found = re.findall(r"^\| `(\w+\.\w+)` \|([^|]+)\|([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    assert len(found) == len({rule for rule, _, _ in found})
    return {rule: (enforced.strip(), distortion) for rule, enforced, distortion in found}


def constraints(verifiers: Sequence[Verifier]) -> list[Constraint]:
    return [constraint for verifier in verifiers for constraint in verifier.constraints()]


def test_every_rule_has_its_row() -> None:
    assert set(rows()) == {constraint.rule for constraint in constraints([*ALWAYS_STATED, *NEVER_STATED])}


@pytest.mark.parametrize("constraint", constraints(ALWAYS_STATED), ids=lambda constraint: constraint.rule)
def test_a_rule_that_is_enforced_distorts_as_the_page_says(constraint: Constraint) -> None:
    enforced, distortion = rows()[constraint.rule]
    assert not isinstance(constraint.demand, Unstated)
    assert not enforced.startswith("no:")
    assert constraint.distortion.name.lower() in distortion


@pytest.mark.parametrize("constraint", constraints(NEVER_STATED), ids=lambda constraint: constraint.rule)
def test_a_rule_that_is_only_checked_has_its_reason_on_the_page(constraint: Constraint) -> None:
    assert isinstance(constraint.demand, Unstated)
    assert rows()[constraint.rule][0] == f"no: {constraint.demand.reason}"


@pytest.mark.parametrize("verifier", [*ALWAYS_STATED, *NEVER_STATED], ids=lambda verifier: verifier.type)
def test_rules_are_named_as_their_checks_are(verifier: Verifier) -> None:
    checked = {f"{verifier.type}.{check.rule}" for text in ("", "{}", "Sea.") for check in verifier.check(text)}
    assert {constraint.rule for constraint in verifier.constraints()} <= checked
