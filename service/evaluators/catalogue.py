"""Every evaluator that a request or a task file can use. The field ``type`` says which one is meant."""

from typing import Annotated

from pydantic import Field

from service.evaluators.code.tests import CodeTests
from service.evaluators.external.plugins import Custom
from service.evaluators.external.webhook import Webhook
from service.evaluators.model.judge import Judge
from service.evaluators.model.perplexity import Perplexity
from service.evaluators.model.similarity import Similarity
from service.evaluators.text.format import Format
from service.evaluators.text.keywords import Keywords, OneOf
from service.evaluators.text.language import Language
from service.evaluators.text.length import Length
from service.evaluators.text.number import Number
from service.evaluators.text.passages import EndsWith, ParagraphStarts, StartsWith
from service.evaluators.text.regex import Regex
from service.evaluators.text.schema import FollowsSchema

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
    | FollowsSchema
    | CodeTests
    | Webhook
    | Judge
    | Perplexity
    | Similarity
    | Custom,
    Field(discriminator="type"),
]
