"""What the tests of text rules share: the wire's own validation, and the one check of a rule."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from service.evaluators.base import Check, StatedEvaluator
from service.evaluators.catalogue import AnyEvaluator

WIRE: TypeAdapter[StatedEvaluator] = TypeAdapter(AnyEvaluator)


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
