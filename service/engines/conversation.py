"""Conversations: what an engine is asked to reply to."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Protocol

from service.errors import InvalidRequest

Role = Literal["system", "user", "assistant"]


class Reply(Protocol):
    """What a conversation keeps of a completion: the text, and the ids as sampled where the engine has them."""

    @property
    def text(self) -> str: ...

    @property
    def token_ids(self) -> tuple[int, ...] | None: ...


@dataclass(frozen=True)
class Image:
    """A picture as the caller gave it. ``media_type``: such as ``image/png``."""

    media_type: str
    data: bytes = field(repr=False)

    @cached_property
    def digest(self) -> str:
        """The same for the same picture only."""
        return hashlib.blake2b(self.data, digest_size=16).hexdigest()

    @cached_property
    def url(self) -> str:
        """The picture as a ``data:`` URL."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, slots=True)
class Turn:
    """``images`` stand before the text; only a user's turn has any."""

    role: Role
    text: str
    token_ids: tuple[int, ...] | None = None
    images: tuple[Image, ...] = ()


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
        for beginning in self.beginnings():
            yield beginning.turn

    def beginnings(self) -> Iterator["Conversation"]:
        """The conversations that this one extends, from the first turn alone, and then itself."""
        found = [self]
        while (before := found[-1].before) is not None:
            found.append(before)
        yield from reversed(found)

    def images(self) -> Iterator[Image]:
        """The images of all turns, from the first to the last."""
        for turn in self.turns():
            yield from turn.images

    def refuse_images(self) -> None:
        """Raise InvalidRequest if there are any: for engines that would have to leave them out."""
        if any(self.images()):
            raise InvalidRequest("the model takes no images")
