"""Token-exact conversations: the ids of a longer conversation begin with the ids of the one it extends.

A chat template is rendered once, around placeholders, and cut into the pieces that stand between turns.
From then on a conversation is only ever appended to: a piece, then the turn's own ids (as sampled, where a
model sampled them). History is never rendered or tokenised again, because some templates rewrite earlier
turns and because decoding then encoding sampled ids need not give the same ids.

The texts of turns are encoded without special tokens, so a text that contains ``<|im_end|>`` becomes the
characters of it and can never open or close a turn. That holds too for what a template puts between
turns and the tokenizer keeps as one token without calling it special, as some do with ``<|user|>`` or ``<think>``.

The images of a turn come before its text. The template shows what it writes there, with a mark for each image, and an
engine that has the model's processor has it put the images' tokens in place of the marks (``before_text``, ``place``).
It is given those pieces alone, so that a text cannot hold a mark and no text is tokenised twice.

History has no thoughts in it, as with the chat templates of reasoning models: a reply that followed thoughts is
kept as its text, after a beginning that opens none. So a longer conversation begins with the tokens of the shorter
one up to the reply, and the reply is computed once more (docs/design/decisions/0021-thoughts.md).
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from types import MappingProxyType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

from service.engines.base import Call, Choose, Sample, Usage, Weigh, WeighedToken
from service.engines.conversation import Conversation, Role, Turn
from service.engines.thoughts import NONE, Habit, Marks, Thinking, find_marks, find_open_marks
from service.errors import InvalidRequest, PromptTooLong

_MARKS = ("\u2983first\u2984", "\u2983second\u2984", "\u2983third\u2984")
"""Placeholders that no template contains and that no template's trimming changes."""


REPLACEMENT = "\ufffd"
"""What a tokenizer decodes a part of a character to."""
CONTEXT_TOKENS = 2

MISFITS = (TemplateError, ValueError, TypeError)
"""What a template raises, or is found out by, that does not take the turns that it is given."""

LONG_TEXT_CHARACTERS = 20_000
"""A longer text is tokenised in a thread, so that it does not block the event loop."""


class Tokenizer(Protocol):
    """The part of transformers' fast tokenizers that is used here."""

    @property
    def all_special_ids(self) -> list[int]: ...

    def get_added_vocab(self) -> dict[str, int]: ...

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: list[int]) -> str: ...

    def apply_chat_template(
        self, conversation: list[dict[str, Any]], *, tokenize: bool, add_generation_prompt: bool, **variables: Any
    ) -> str: ...


NO_THINKING: Mapping[str, Any] = MappingProxyType({"enable_thinking": False, "thinking": False})
"""The variables by which chat templates are asked that a reply begin without thoughts; each knows one or none."""


class ChatTokenizer:
    """Turns conversations into token ids for one model.

    ``tokenizer``: the model's. ``thinking``: what the operator says of its thoughts. ``marks``: those around them, if
    they are known; else what the chat template shows of them. ``knows_system``: the template has that role.
    ``takes_greetings``: an assistant's turn may come first in it. ``habit``: how replies begin.
    ``hides_marks``: those around thoughts are special tokens, which engines leave out of texts unless they are asked
    for them.
    """

    def __init__(self, tokenizer: Tokenizer, thinking: Thinking | None = None, marks: Marks | None = None) -> None:
        thinking = thinking or Thinking()
        self.tokenizer = tokenizer
        self._variables = thinking.variables
        self._ids: WeakKeyDictionary[Conversation, list[int]] = WeakKeyDictionary()
        self._spelled: dict[int, list[int]] = {}
        self._in_parts = False
        self._in_parts = self._render_or_none() is None and self._render_or_none(images=0) is not None
        self._image_mark: Callable[[int], str] | None = None
        self.knows_system = self.takes_greetings = True
        self.habit = Habit(certain=True)
        asking, direct = self._find_endings(marks)
        if thinking.parser == NONE:
            self.habit = Habit("whole", certain=True)
        self._direct = self._encode_template(direct)
        self._ask = self._encode_template(asking)
        self._before = self._pieces(asking)
        pieces = [*self._before.values(), self._ask, self._direct]
        self.special_ids: frozenset[int] = frozenset(tokenizer.all_special_ids)
        self.keep_from_texts(token for piece in pieces for token in piece)
        marks_ids = (
            {token for mark in self.habit.marks for token in self._encode_template(mark)}
            if self.habit.thinks
            else set()
        )
        self.hides_marks = not marks_ids.isdisjoint(tokenizer.all_special_ids)

    def prompt_ids(self, conversation: Conversation, prefill: str = "", *, thinking: bool = True) -> list[int]:
        """The ids that ask for the next reply to ``conversation``, whose last turn is the user's.

        ``prefill`` is a text that the reply begins with. ``thinking``: the reply may begin with thoughts.
        InvalidRequest if it has images that are not placed.
        """
        if conversation.turn.role != "user":
            raise ValueError("only a user turn can be replied to")
        return [*self._history(conversation), *(self._ask if thinking else self._direct), *self.encode(prefill)]

    def keep_from_texts(self, tokens: Iterable[int]) -> None:
        """Spell the marks of these tokens where a text has them. Special tokens are split without that."""
        kept = {*tokens, *self.special_ids}
        self._spelled |= {
            token: [part for character in mark for part in self._encode_plain(character)]
            for mark, token in self.tokenizer.get_added_vocab().items()
            if token in kept and not mark.isspace()
        }
        self.special_ids = frozenset([*self.special_ids, *self._spelled])

    def mark_images_with(self, mark: Callable[[int], str]) -> None:
        """Where the template knows texts only: mark the images of a turn with ``mark``, each by its number from 1."""
        if not self._in_parts and self._render_or_none(images=0) != self._render_or_none():
            self._image_mark = mark

    def before_text(self, conversation: Conversation) -> list[int]:
        """The ids that the last turn, a user's with images, adds before its text, with a mark for each image.

        ValueError if the template has no place for images there.
        """
        role = conversation.before.turn.role if conversation.before else None
        images = len(conversation.turn.images)
        roles: tuple[Role, ...]
        match role:
            case "system" if self.knows_system:
                roles = ("system", "user")
            case "assistant":
                roles = ("user", "assistant", "user")
            case _:
                roles = ("user",)
        plain = self._render(*roles)[len(roles) - 1]
        if self._image_mark is not None:
            shown = plain + "".join(f"{self._image_mark(number)}\n" for number in range(1, images + 1))
        else:
            shown = self._render(*roles, images=images)[len(roles) - 1]
        same = takewhile(lambda both: both[0] == both[1], zip(plain, shown, strict=False))
        marks = shown[sum(1 for _ in same) :]
        if not marks:
            raise ValueError("the model's chat template has no place for images")
        if role == "user" or (role == "system" and not self.knows_system):
            shown = "\n\n" + marks
        return self._encode_template(shown)

    def place(self, conversation: Conversation, ids: Sequence[int]) -> None:
        """Remember what ``before_text`` became: ``ids`` have the tokens of the last turn's images."""
        self._ids[conversation] = [*ids, *self._turn_ids(conversation.turn)]

    def is_placed(self, conversation: Conversation) -> bool:
        return conversation in self._ids

    def image_turns(self, conversation: Conversation) -> Iterator[tuple[int, Conversation]]:
        """The beginnings of a conversation whose last turns have images, each with the place of that turn in the
        conversation's ids."""
        begin = 0
        for beginning in conversation.beginnings():
            if beginning.turn.images:
                yield begin, beginning
            begin += len(self._step(beginning))

    def encode(self, text: str) -> list[int]:
        """The ids of a text, in which nothing is special."""
        ids = self._encode_plain(text)
        if self._spelled.keys().isdisjoint(ids):
            return ids
        return [part for token in ids for part in self._spelled.get(token, (token,))]

    async def upper_bound(self, call: Call[Any], context_tokens: int, sampled_from: Sequence[int] | None) -> Usage:
        """The most that a call can cost. ``sampled_from``: the whole prompt of a sample. PromptTooLong as for
        ``fitting_ids``."""
        most = 1
        match call:
            case Sample() if sampled_from is not None:
                ids, most = sampled_from, call.sampling.max_tokens
            case Choose(prefill=begun) | Weigh(reply=begun):
                ids = await self.fitting_ids(call.conversation, context_tokens, begun, thinking=False)
            case _:
                raise TypeError(f"{type(call).__name__} is not a kind of call")
        return Usage(1, len(ids), 0, min(most, context_tokens - len(ids)))

    async def fitting_ids(
        self,
        conversation: Conversation,
        context_tokens: int,
        prefill: str = "",
        tokens: int = 1,
        *,
        thinking: bool = True,
    ) -> list[int]:
        """The conversation's ids; PromptTooLong if the context has no room for a reply of ``tokens``."""
        if sum(len(turn.text) for turn in conversation.turns()) + len(prefill) > LONG_TEXT_CHARACTERS:
            ids = await asyncio.to_thread(self.prompt_ids, conversation, prefill, thinking=thinking)
        else:
            ids = self.prompt_ids(conversation, prefill, thinking=thinking)
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

    def weighed(self, ids: Sequence[int], weights: Sequence[Mapping[int, float]]) -> tuple[WeighedToken, ...]:
        """The tokens of a given reply. ``weights``: for each, the log-probabilities that are known in its place, by
        their ids. Impossible where its own is not known."""
        return tuple(
            WeighedToken(text, known.get(token, -math.inf), *self._likeliest(known))
            for token, text, known in zip(ids, self._texts(ids), weights, strict=True)
        )

    def _likeliest(self, known: Mapping[int, float]) -> tuple[str, float]:
        if not known:
            return "", -math.inf
        token = max(known, key=known.__getitem__)
        text = "" if token in self.special_ids else self.tokenizer.decode([token])
        return text.strip(REPLACEMENT), known[token]

    def _texts(self, ids: Sequence[int]) -> list[str]:
        """The tokens' parts of the text that they spell."""
        texts: list[str] = []
        begin = 0
        for end in range(1, len(ids) + 1):
            context = list(ids[max(0, begin - CONTEXT_TOKENS) : begin])  # the first token of a text may lose its blank
            text = self.tokenizer.decode([*context, *ids[begin:end]])[len(self.tokenizer.decode(context)) :]
            if end == len(ids) or not text.endswith(REPLACEMENT):
                texts += [text] + [""] * (end - begin - 1)
                begin = end
        return texts

    def thought_tokens(self, sampled: Sequence[int], text: str) -> int:
        """How many of a reply's tokens came before its text: as many as end with the mark that ends thoughts and leave
        about what the text needs; where the mark is not one token, as many as the text does not need."""
        more = max(0, len(sampled) - len(self.encode(text)))
        ends = self._encode_template(self.habit.marks.end)
        until = [place for place, token in enumerate(sampled, 1) if [token] == ends]
        return min(until, key=lambda place: abs(place - more)) if until else more

    def option_ids(self, options: Sequence[str]) -> list[int]:
        """The tokens that spell options, if they are single tokens: each at a reply's start, or after a blank."""
        return sorted({token for option in options for token in self._spellings(option)})

    def option_logprobs(self, options: Sequence[str], logprobs: Mapping[int, float]) -> tuple[float, ...]:
        """The options' natural-log probabilities, by those of tokens; a token that is not there is impossible."""
        return tuple(
            log_sum_exp(logprobs[token] for token in self._spellings(option) if token in logprobs) for option in options
        )

    def _spellings(self, option: str) -> list[int]:
        return [ids[0] for text in (option, f" {option}") if len(ids := self.encode(text)) == 1]

    def _encode_plain(self, text: str) -> list[int]:
        """The ids of a text with special tokens split; the tokenizer cannot split other added tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def _history(self, conversation: Conversation) -> list[int]:
        """The ids up to the last character of the last turn, which is left open."""
        return [token for beginning in conversation.beginnings() for token in self._step(beginning)]

    def _step(self, conversation: Conversation) -> Sequence[int]:
        """What the last turn adds to the ids of the conversation before it."""
        ids = self._ids.get(conversation)
        if ids is None:
            turn, before = conversation.turn, conversation.before
            if turn.images:
                raise InvalidRequest("the model takes no images")
            if before is not None and before.turn.role == turn.role == "user":
                ids = self.encode("\n\n" + turn.text)
            else:
                ids = [*self._before[before.turn.role if before else None, turn.role], *self._turn_ids(turn)]
            self._ids[conversation] = ids
        return ids

    def _turn_ids(self, turn: Turn) -> Sequence[int]:
        return self.encode(turn.text) if turn.token_ids is None else turn.token_ids

    def _find_endings(self, marks: Marks | None) -> tuple[str, str]:
        """The ends of prompts: one that leaves the model free to think, and one after which it answers at once."""
        *_, free = self._render("user")
        *_, direct = self._render("user", **NO_THINKING)
        opened = find_open_marks(free)
        marks = marks or opened or find_marks(direct) or find_marks(free)
        if marks is None or (find_marks(free) and not opened):
            return free, direct  # the model does not think, or its template has ended the thoughts for it already
        self.habit = Habit("open" if opened else "tagged", marks, certain=True)
        if find_open_marks(direct) or direct == free:
            direct += marks.closing if opened else f"{marks.start}{marks.closing}"
        return free, direct

    def _pieces(self, asking: str) -> dict[tuple[Role | None, Role], list[int]]:
        """The ids that stand between two turns, by their roles; None is the start."""
        to_user, _ = self._render("user")
        _, _, reply_to_user, _ = self._render("user", "assistant", "user")
        try:
            to_system, system_to_user, _ = self._render("system", "user")
        except (TemplateError, ValueError):
            # What the system says then begins the user's first turn.
            self.knows_system = False
            to_system, system_to_user = to_user, "\n\n"
        opened = find_open_marks(asking)
        to_reply = asking.rpartition(opened.start)[0] if opened else asking
        pieces: dict[tuple[Role | None, Role], str] = {
            (None, "user"): to_user,
            (None, "system"): to_system,
            ("system", "user"): system_to_user,
            (None, "assistant"): self._greeting("assistant") or to_user + to_reply,
            ("system", "assistant"): to_reply,
            ("user", "assistant"): to_reply,
            ("assistant", "user"): reply_to_user,
        }
        if self.knows_system:
            pieces["system", "assistant"] = self._greeting("system", "assistant") or system_to_user + to_reply
        return {roles: self._encode_template(piece) for roles, piece in pieces.items()}

    def _greeting(self, *roles: Role) -> str | None:
        """What comes before an assistant's turn that no user's comes before. None where the template wants the user's
        first: then an empty one is."""
        try:
            return self._render(*roles, "user")[len(roles) - 1]
        except (TemplateError, ValueError):
            self.takes_greetings = False
            return None

    def _render_or_none(self, images: int | None = None) -> str | None:
        """What the template writes around a user's turn; None if it does not take the turn so."""
        try:
            return "\n".join(self._render("user", images=images))
        except MISFITS:
            return None

    def _render(self, *roles: Role, images: int | None = None, **variables: object) -> list[str]:
        """Render the template around placeholder turns; give what is before, between and after them.

        ``images``: how many the last turn has. A turn is a text, or a list of parts where the template asks for that
        or the number of images is given.
        """
        marks = _MARKS[: len(roles)]
        turns: list[dict[str, Any]] = [
            {"role": role, "content": self._content(mark, images if mark == marks[-1] else None)}
            for role, mark in zip(roles, marks, strict=True)
        ]
        text = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, **{**self._variables, **variables}
        )
        pieces = []
        for mark in marks:
            piece, found, text = text.partition(mark)
            if not found:
                raise ValueError(f"the model's chat template leaves out a turn of the roles {roles}")
            pieces.append(piece)
        return [*pieces, text]

    def _content(self, text: str, images: int | None) -> str | list[dict[str, str]]:
        if images is None and not self._in_parts:
            return text
        return [*({"type": "image"} for _ in range(images or 0)), {"type": "text", "text": text}]

    def _encode_template(self, piece: str) -> list[int]:
        """The ids of what a template writes."""
        return self.tokenizer.encode(piece, add_special_tokens=False, split_special_tokens=False)


def log_sum_exp(logprobs: Iterable[float]) -> float:
    """The natural-log probability of either of several events that exclude each other."""
    values = list(logprobs)
    top = max(values, default=-math.inf)
    return top if top == -math.inf else top + math.log(sum(math.exp(value - top) for value in values))
