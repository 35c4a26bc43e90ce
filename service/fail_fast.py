"""Validation that ends after a few wrong members.

By default pydantic makes an error of each wrong member, some hundred bytes for each, and a caller may send a million.
So every sequence of a request is marked with FAIL_FAST, and every mapping whose values have fields with
``limit_members``, since pydantic has nothing for mappings.
"""

from typing import Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError, PydanticKnownError

MOST_FIELDS = 16

FAIL_FAST = Field(fail_fast=True, strict=False)
"""``Annotated[tuple[Item, ...], FAIL_FAST]``. Unlike ``pydantic.FailFast`` it is hashable, as unions need.

JSON's lists come as Python's, which a strict tuple would refuse; its members are as strict as they say.
"""


def limit_members(most: int) -> BeforeValidator:
    """Refuse a mapping of more than ``most`` objects, or of one with more than MOST_FIELDS fields, as a whole.

    It is written last, ``Annotated[Mapping[str, Item], Len(0, 9), limit_members(9)]``, so that it is looked at first.
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
