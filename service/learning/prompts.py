"""A prompt to learn from or to be examined with, and what its rules say of a text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from service.engines.conversation import Conversation, Turn
from service.evaluators.base import Verifier
from service.evaluators.catalogue import AnyEvaluator

_EVALUATORS: TypeAdapter[tuple[AnyEvaluator, ...]] = TypeAdapter(tuple[AnyEvaluator, ...])


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(BaseModel):
    """A prompt with the rules that a text for it has to follow.

    id: unique among the prompts of a set.
    messages: the conversation, which ends with the user's message.
    evaluators: the hard verifiers, as a request states them.
    kinds: what the rules are about, such as ``lowercase``.
    family: prompts of the same family are never split between training and exam; empty for a prompt without one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    id: str
    messages: tuple[Message, ...]
    evaluators: tuple[Mapping[str, Any], ...]
    kinds: tuple[str, ...] = ()
    family: str = ""

    @property
    def text(self) -> str:
        """The last message."""
        return self.messages[-1].content

    @property
    def messages_given(self) -> Sequence[str]:
        """The messages that the model did not write."""
        return [message.content for message in self.messages if message.role != "assistant"]

    @property
    def passages(self) -> Sequence[str]:
        """The messages that the model did not write, whole and by paragraphs, each once."""
        found = dict.fromkeys(self.messages_given)
        for content in self.messages_given:
            found.update(dict.fromkeys(part.strip() for part in content.split("\n\n") if part.strip()))
        return list(found)

    @property
    def conversation(self) -> Conversation:
        first, *rest = (Turn(message.role, message.content) for message in self.messages)
        conversation = Conversation(first)
        for turn in rest:
            conversation = Conversation(turn, conversation)
        return conversation

    @cached_property
    def verifiers(self) -> "Sequence[Verifier] | None":
        """The rules, as the verifiers of today; None if one of them cannot be checked by its text alone."""
        try:
            found = _EVALUATORS.validate_json(json.dumps(self.evaluators), strict=True)
        except ValueError:
            return None
        rules = [verifier for verifier in found if isinstance(verifier, Verifier)]
        return rules if len(rules) == len(found) else None

    def verify(self, text: str) -> "Verdict":
        """What the rules say of a text. ValueError if they cannot be checked."""
        if self.verifiers is None:
            raise ValueError(f"the rules of the prompt {self.id} cannot be checked by a text alone")
        checks = [check for verifier in self.verifiers for check in verifier.check(text)]
        broken = tuple(check.instruction for check in checks if check.score < 1.0)
        rules = tuple(check.rule for check in checks if check.score < 1.0)
        return Verdict(passed=bool(text.strip()) and not broken, broken=broken, rules=rules)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What rules say of a text.

    broken: the instructions that it does not follow. rules: the names of those rules, such as ``words``.
    """

    passed: bool
    broken: tuple[str, ...]
    rules: tuple[str, ...]
