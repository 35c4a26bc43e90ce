"""Token-exact conversations: the ids of a longer conversation begin with the ids of the one it extends.

A chat template is rendered once, around placeholders, and cut into the pieces that stand between turns.
From then on a conversation is only ever appended to: a piece, then the turn's own ids (as sampled, where a
model sampled them). History is never rendered or tokenised again, because some templates rewrite earlier
turns and because decoding then encoding sampled ids need not give the same ids.

The texts of turns are encoded without special tokens, so a text that contains ``<|im_end|>`` becomes the
characters of it and can never open or close a turn. That holds too for what a template puts between
turns and the tokenizer keeps as one token without calling it special, as some do with ``<|user|>`` or ``<think>``.
"""

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

from service.engines.conversation import Conversation, Role, Turn
from service.errors import PromptTooLong

_MARKS = ("\u2983first\u2984", "\u2983second\u2984", "\u2983third\u2984")
"""Placeholders that no template contains and that no template's trimming changes."""


LONG_TEXT_CHARACTERS = 20_000
"""A longer text is tokenised in a thread, so that the event loop does not stand still."""


class Tokenizer(Protocol):
    """The part of transformers' fast tokenizers that is used here."""

    @property
    def all_special_ids(self) -> list[int]: ...

    def get_added_vocab(self) -> dict[str, int]: ...

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]: ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str: ...


class ChatTokenizer:
    """Turns conversations into token ids for one model. ``knows_system``: its chat template has that role."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: WeakKeyDictionary[Conversation, list[int]] = WeakKeyDictionary()
        self._spelled: dict[int, list[int]] = {}
        self.knows_system = True
        self._before = self._pieces()
        marks = {token for piece in self._before.values() for token in piece}.union(tokenizer.all_special_ids)
        self._spelled = {
            token: [part for character in mark for part in self._split(character)]
            for mark, token in tokenizer.get_added_vocab().items()
            if token in marks and not mark.isspace()
        }
        self.special_ids = frozenset([*tokenizer.all_special_ids, *self._spelled])

    def prompt_ids(self, conversation: Conversation, lead: str = "") -> list[int]:
        """The ids that ask for the next reply to ``conversation``, whose last turn is the user's; it has no images.

        ``lead`` is a text that the reply begins with.
        """
        if conversation.turn.role != "user":
            raise ValueError("only a user turn can be replied to")
        conversation.refuse_images()
        return [*self._history(conversation), *self._before["user", "assistant"], *self.encode(lead)]

    def encode(self, text: str) -> list[int]:
        """The ids of a text, in which nothing is special."""
        ids = self._split(text)
        if self._spelled.keys().isdisjoint(ids):
            return ids
        return [part for token in ids for part in self._spelled.get(token, (token,))]

    async def fitting_ids(
        self, conversation: Conversation, context_tokens: int, lead: str = "", tokens: int = 1
    ) -> list[int]:
        """The conversation's ids; PromptTooLong if the context has no room for a reply of so many tokens."""
        if sum(len(turn.text) for turn in conversation.turns()) + len(lead) > LONG_TEXT_CHARACTERS:
            ids = await asyncio.to_thread(self.prompt_ids, conversation, lead)
        else:
            ids = self.prompt_ids(conversation, lead)
        if len(ids) + tokens > context_tokens:
            raise PromptTooLong(len(ids), context_tokens)
        return ids

    def reply_ids(self, sampled: Sequence[int], *, stopped_at_text: bool) -> tuple[int, ...] | None:
        """The ids of a reply as they stand in its turn; None if its text has to be tokenised again for that.

        After a stop string the ids hold more than the text does, and a special token among them could close the turn.
        """
        ids = list(sampled)
        if ids and ids[-1] in self.special_ids:
            del ids[-1]
        return tuple(ids) if not stopped_at_text and self.special_ids.isdisjoint(ids) else None

    def option_ids(self, options: Sequence[str]) -> list[int]:
        """The tokens that spell one-character options: each at a reply's start, or after a blank."""
        return sorted({token for option in options for token in self._spellings(option)})

    def option_logprobs(self, options: Sequence[str], logprobs: Mapping[int, float]) -> tuple[float, ...]:
        """The options' natural-log probabilities, by those of tokens; a token that is not there is impossible."""
        return tuple(
            log_sum_exp(logprobs[token] for token in self._spellings(option) if token in logprobs) for option in options
        )

    def _spellings(self, option: str) -> list[int]:
        return [ids[0] for text in (option, f" {option}") if len(ids := self.encode(text)) == 1]

    def _split(self, text: str) -> list[int]:
        """The ids of a text as far as the tokenizer can be told to split tokens: it splits the special ones only."""
        return self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def _history(self, conversation: Conversation) -> list[int]:
        """The ids up to the last character of the last turn, which is left open."""
        steps = []
        node: Conversation | None = conversation
        while node is not None:
            steps.append(self._step(node))
            node = node.before
        return [token for step in reversed(steps) for token in step]

    def _step(self, conversation: Conversation) -> Sequence[int]:
        """What the last turn adds to the ids of the conversation before it."""
        ids = self._ids.get(conversation)
        if ids is None:
            turn, before = conversation.turn, conversation.before
            if before is not None and before.turn.role == turn.role == "user":
                ids = self.encode("\n\n" + turn.text)
            else:
                ids = [*self._before[before.turn.role if before else None, turn.role], *self._turn_ids(turn)]
            self._ids[conversation] = ids
        return ids

    def _turn_ids(self, turn: Turn) -> Sequence[int]:
        return self.encode(turn.text) if turn.token_ids is None else turn.token_ids

    def _pieces(self) -> dict[tuple[Role | None, Role], list[int]]:
        """The ids that stand between two turns, by their roles; None is the start."""
        to_user, to_reply = self._render("user")
        _, _, reply_to_user, _ = self._render("user", "assistant", "user")
        try:
            to_system, system_to_user, _ = self._render("system", "user")
        except (TemplateError, ValueError):
            # What the system says then begins the user's first turn.
            self.knows_system = False
            to_system, system_to_user = to_user, self.encode("\n\n")
        return {
            (None, "user"): to_user,
            (None, "system"): to_system,
            ("system", "user"): system_to_user,
            ("user", "assistant"): to_reply,
            ("assistant", "user"): reply_to_user,
        }

    def _render(self, *roles: Role) -> list[list[int]]:
        """Render the template around placeholder turns; give the ids before, between and after them."""
        turns = [{"role": role, "content": mark} for role, mark in zip(roles, _MARKS, strict=False)]
        text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        pieces = []
        for turn in turns:
            piece, found, text = text.partition(turn["content"])
            if not found:
                raise ValueError(f"the model's chat template leaves out a turn of the roles {roles}")
            pieces.append(piece)
        return [
            self._tokenizer.encode(p, add_special_tokens=False, split_special_tokens=False) for p in [*pieces, text]
        ]


def log_sum_exp(logprobs: Iterable[float]) -> float:
    """The natural-log probability of either of several events that exclude each other."""
    values = list(logprobs)
    top = max(values, default=-math.inf)
    return top if top == -math.inf else top + math.log(sum(math.exp(value - top) for value in values))
