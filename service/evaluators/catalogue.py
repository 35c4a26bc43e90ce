"""Every evaluator that a request or a task file can state, told apart by its ``type``."""

from typing import Annotated

from pydantic import Field

from service.evaluators.format import Format
from service.evaluators.judge import Judge
from service.evaluators.rules import EndsWith, Keywords, Length, Number, Regex, StartsWith
from service.evaluators.schema import JsonSchema

AnyEvaluator = Annotated[
    Length | Keywords | Regex | StartsWith | EndsWith | Number | Format | JsonSchema | Judge,
    Field(discriminator="type"),
]
