"""Conversations: what an engine is asked to reply to."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

Role = Literal["system", "user", "assistant"]


class Reply(Protocol):
    """What a conversation keeps of a completion: the text, and the ids as sampled where the engine has them."""

    @property
    def text(self) -> str: ...

    @property
    def token_ids(self) -> tuple[int, ...] | None: ...


@dataclass(frozen=True, slots=True)
class Turn:
    role: Role
    text: str
    token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False, weakref_slot=True, slots=True)
class Conversation:
    """An immutable dialogue: its last turn, and the conversation that this one extends.

    Two user turns in a row are one turn, joined by a blank line. So a question about a prompt shares every
    token of that prompt with whatever else was asked about it, and an engine that caches prefixes computes
    the prompt once.
    """

    turn: Turn
    before: "Conversation | None" = None

    def with_user(self, text: str) -> "Conversation":
        return Conversation(Turn("user", text), self)

    def with_reply(self, reply: "Reply | str") -> "Conversation":
        """Extend by an assistant turn: a completion keeps its token ids, a string is a text from elsewhere."""
        if isinstance(reply, str):
            return Conversation(Turn("assistant", reply), self)
        return Conversation(Turn("assistant", reply.text, reply.token_ids), self)

    def as_text(self) -> "Conversation":
        """The same without token ids, for a model to which they mean nothing. What had none stays the same object, so
        that an engine knows it again."""
        before = self.before.as_text() if self.before else None
        if before is self.before and self.turn.token_ids is None:
            return self
        return Conversation(replace(self.turn, token_ids=None), before)

    def turns(self) -> Iterator[Turn]:
        """The turns from the first to the last."""
        if self.before is not None:
            yield from self.before.turns()
        yield self.turn
