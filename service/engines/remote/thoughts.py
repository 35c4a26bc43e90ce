"""How the model of a server thinks: found out when the server comes up, and read from what it answers.

Servers with a reasoning parser tell thoughts in a field of their own, ``reasoning_content`` or ``reasoning``. Those
without one leave them in the content (thoughts.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from service.engines.base import ReplyEnd, Thought, Usage
from service.engines.remote.answers import Text
from service.engines.thoughts import NONE, Habit, Marks, Opening, Split, Splitter, Thinking, find_marks, find_open_marks

PROBE_TOKENS = 16
"""Enough for most models to say yes and end, and for one that thinks to have begun."""
LAST_TOKENS = 32
"""Of a prompt: what a chat template writes to ask for a reply is among them."""
DIRECT: Sequence[Mapping[str, object]] = (
    {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
    {"reasoning_effort": "none"},
)
"""How servers are asked for a reply without thoughts: vLLM's, SGLang's and llama.cpp's way, and OpenAI's."""


class SaidText(BaseModel):
    """A message or a piece of one. Servers that tell thoughts under both names tell the same."""

    content: Text = None
    reasoning_content: Any = None
    reasoning: Any = None

    @property
    def thoughts(self) -> str:
        written = (said for said in (self.reasoning_content, self.reasoning) if isinstance(said, str))
        return next((said for said in written if said), "")


class ChatReader:
    """Reads one message, whole or in pieces."""

    def __init__(self, splitter: Splitter) -> None:
        self.splitter = splitter
        self._thoughts: list[str] = []
        self._begun = False

    def feed(self, said: SaidText) -> list[str | Thought]:
        made: list[str | Thought] = []
        if thoughts := said.thoughts:
            made.append(Thought(thoughts))
            if not (self._thoughts or self._begun):
                self.splitter = Splitter.after(self.splitter.marks, self.splitter.asked)
            self._thoughts.append(thoughts)
        if said.content:
            self._begun = True
            made += self.splitter.feed(said.content)
        return made

    def end(self, finish_reason: ReplyEnd) -> tuple[list[str | Thought], Split]:
        last, split = self.splitter.end(finish_reason)
        written = "".join(self._thoughts).strip()
        thoughts = "\n\n".join(part for part in (written, split.thoughts) if part)
        return last, replace(split, thoughts=thoughts)


def count_thoughts(usage: Usage, split: Split) -> Usage:
    """The usage with the tokens of thoughts: as many as the server tells, or else their share of the characters."""
    if usage.reasoning_tokens or not split.thoughts:
        return usage
    share = len(split.thoughts) / (len(split.thoughts) + len(split.text))
    return replace(usage, reasoning_tokens=round(usage.completion_tokens * share))


def first_habit(said: SaidText, finish_reason: str | None, prompt: Sequence[str] | None, stated: Thinking) -> Habit:
    """How replies begin, by the first PROBE_TOKENS of one. ``prompt``: its prompt's tokens, where they are written."""
    if stated.parser == NONE:
        return Habit("whole", certain=True)
    content = (said.content or "").lstrip()
    if said.thoughts:
        return Habit("tagged", certain=True)
    if prompt is not None:
        asking = "".join(prompt[-LAST_TOKENS:])
        if opened := find_open_marks(asking):
            return Habit("open", opened, certain=True)
        return Habit("tagged" if _begins(content) else "plain", certain=True)
    if _begins(content):
        return Habit("tagged", certain=True)
    if marks := find_marks(content):
        return Habit("open", marks)
    opening: Opening = "plain" if finish_reason == "stop" and content else "unknown"
    return Habit(opening)


def begins_with_thoughts(said: SaidText) -> bool:
    return bool(said.thoughts) or _begins((said.content or "").lstrip()) is not None


def _begins(content: str) -> Marks | None:
    marks = find_marks(content)
    return marks if marks and content.startswith(marks.start) else None


@dataclass(frozen=True, slots=True)
class ThinkingFields:
    """What a server is sent about thinking. ``direct``: the one of DIRECT that it follows, if any."""

    variables: Mapping[str, Any]
    direct: Mapping[str, Any] | None = None

    def of(self, thinking: bool) -> dict[str, Any]:
        """The fields of a request's body."""
        fields: dict[str, Any] = {} if thinking or self.direct is None else dict(self.direct)
        if self.variables:
            fields["chat_template_kwargs"] = {**self.variables, **fields.get("chat_template_kwargs", {})}
        return fields
