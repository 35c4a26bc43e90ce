"""What the tests of text rules share: the wire's own validation, and the one check of a rule."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from service.evaluators.base import Check, EvaluatorSpec
from service.evaluators.catalogue import AnyEvaluator
from service.evaluators.text.number import Number

WIRE: TypeAdapter[EvaluatorSpec] = TypeAdapter(AnyEvaluator)


def only(checks: Sequence[Check]) -> Check:
    (check,) = checks
    return check


def in_english(checks: Sequence[Check]) -> Sequence[Check]:
    """The checks without their translations."""
    return [replace(check, translations={}) for check in checks]


def refusals(**body: Any) -> dict[tuple[int | str, ...], str]:
    """What the wire says against the evaluator: a message by location."""
    with pytest.raises(ValidationError) as caught:
        WIRE.validate_json(json.dumps(body))
    return {error["loc"]: error["msg"] for error in caught.value.errors()}


def assert_last(text: str, value: float | None, locale: str | None = None) -> None:
    """The last number is ``value``, or there is none; quotients are compared to 12 digits."""
    wanted = value or 0.0
    check = only(Number(value=wanted, tolerance=abs(wanted) * 1e-12, locale=locale).check(text))
    assert check.message.startswith("there is no number") if value is None else check.score == 1.0, check.message
