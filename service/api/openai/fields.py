"""Fields of OpenAI's requests: those that are ignored or refused, and how errors name them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Len
from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from service.errors import FieldError, InvalidRequest


@dataclass(frozen=True, eq=False)  # equal values would share one annotation in typing's cache: 0 and False are equal
class Only:
    """For a field that cannot be followed: takes null, or the ``value`` by which a client says that it need not be.

    hint: what else to do.
    """

    value: Any = None
    hint: str = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, given: Any) -> Any:
        same = given == self.value and isinstance(given, bool) == isinstance(self.value, bool)
        if given is not None and not same:
            instead = "" if self.value is None else f" or send {json.dumps(self.value)}"
            raise ValueError(f"not supported here: leave it out{instead}{self.hint and f'; {self.hint}'}")
        return given


Metadata = Annotated[dict[Annotated[str, Len(0, 64)], Annotated[str, Len(0, 512)]], Len(0, 16)]
"""Notes of the caller's, within OpenAI's bounds. The answer and the log repeat them."""

Ignored = Annotated[Any, Field(description="Ignored.")]


@contextmanager
def rename_fields(rename: Callable[[FieldError], FieldError]) -> Iterator[None]:
    """Let an InvalidRequest name the fields as the caller did."""
    try:
        yield
    except InvalidRequest as error:
        error.errors = tuple(map(rename, error.errors))
        raise
