"""Validation that ends after a few wrong members.

By default pydantic makes an error for each wrong member, of some hundred bytes, and a caller may send a million. So
every sequence of a request is marked with FAIL_FAST. Every mapping whose values have fields is marked with
``limit_members``, because pydantic has nothing of the kind for mappings.
"""

from typing import Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError, PydanticKnownError

MOST_FIELDS = 16

FAIL_FAST = Field(fail_fast=True, strict=False)
"""``Annotated[tuple[Item, ...], FAIL_FAST]``. Unlike ``pydantic.FailFast`` it is hashable, as unions need.

An array of JSON arrives as a list, which a strict tuple would refuse. The members are as strict as their own types.
"""


def limit_members(most: int) -> BeforeValidator:
    """Refuse a mapping as a whole if it has more than ``most`` members, or one with more than MOST_FIELDS fields.

    It comes last, ``Annotated[Mapping[str, Item], Len(0, 9), limit_members(9)]``, so that it is looked at first.
    """

    def check(given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        if len(given) > most:
            length = {"field_type": "Dictionary", "max_length": most, "actual_length": len(given)}
            raise PydanticKnownError("too_long", length)
        if any(isinstance(value, dict) and len(value) > MOST_FIELDS for value in given.values()):
            raise PydanticCustomError("too_many_fields", "Input should hold objects of fewer fields")
        return given

    return BeforeValidator(check)
