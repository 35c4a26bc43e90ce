"""Every evaluator that a request or a task file can state, told apart by its ``type``."""

from typing import Annotated

from pydantic import Field

from service.evaluators.code import CodeTests
from service.evaluators.judge import Judge
from service.evaluators.language import Language
from service.evaluators.perplexity import Perplexity
from service.evaluators.plugins import Custom
from service.evaluators.rules import Regex
from service.evaluators.schema import JsonSchema
from service.evaluators.similarity import Similarity
from service.evaluators.text.format import Format
from service.evaluators.text.keywords import Keywords, OneOf
from service.evaluators.text.length import Length
from service.evaluators.text.number import Number
from service.evaluators.text.passages import EndsWith, ParagraphStarts, StartsWith
from service.evaluators.webhook import Webhook

AnyEvaluator = Annotated[
    Length
    | Keywords
    | Regex
    | StartsWith
    | EndsWith
    | ParagraphStarts
    | OneOf
    | Number
    | Language
    | Format
    | JsonSchema
    | CodeTests
    | Webhook
    | Judge
    | Perplexity
    | Similarity
    | Custom,
    Field(discriminator="type"),
]
