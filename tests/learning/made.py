"""Prompts and collected texts for tests of learning."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.learning.collected import Collected, Text
from service.learning.prompts import Message, Prompt

SALT = {"type": "keywords", "include": ["salt"]}


def prompt(
    its_id: str = "p", text: str = "Write about the sea.", *rules: Mapping[str, Any], family: str = ""
) -> Prompt:
    """A prompt whose rule is to mention salt, unless it has others."""
    return Prompt(id=its_id, messages=(Message(role="user", content=text),), evaluators=rules or (SALT,), family=family)


def text(words: str, source: Any = "free", **fields: Any) -> Text:
    return Text(text=words, source=source, **fields)


def collected(*texts: Text, of: Prompt | None = None, preferences: Sequence[Any] = (), **fields: Any) -> Collected:
    return Collected(prompt=of or prompt(), texts=texts, preferences=tuple(preferences), **fields)
