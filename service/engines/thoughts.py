"""Splits thoughts from answers, for reasoning models that write their thoughts into the text.

Thoughts come first: a block between two marks, such as ``<think>`` and ``</think>``, or up to MOST_BLOCKS blocks in a
row. Later marks, or marks after more than MOST_BLANKS blanks, are part of the text, so that splitting takes time linear
in the length of a reply. Some chat templates write the opening mark themselves; then a reply begins inside its thoughts
and has only the closing mark. Some callers ask for such marks: if a prompt contains the opening mark, a reply that
begins with it counts as the text that was asked for, unless the model is known to think.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from service.engines.base import ReplyEnd, Thought
from service.engines.conversation import Conversation

Opening = Literal["plain", "tagged", "open", "unknown", "whole"]
"""How a model's replies begin. ``plain``: not inside thoughts. ``tagged``: the same, and the model is known to write
marks. ``open``: inside thoughts. ``unknown``: perhaps inside thoughts. ``whole``: all is text, whatever it is."""

Way = Literal["free", "direct", "grammar"]
"""How a reply is asked for. ``direct``: its prompt has ended the thoughts. ``grammar``: the server's grammar may have
begun at once, so that no mark could be written."""

MOST_BLOCKS = 16
MOST_BLANKS = 1_000
"""Characters."""

AUTO = "auto"
NONE = "none"


@dataclass(frozen=True, slots=True)
class Thinking:
    """What an operator says of a model's thoughts. ``parser``: what tells them apart, a name of vLLM's, AUTO, or NONE
    where texts are left as they are. ``variables``: those of the chat template, such as ``enable_thinking``."""

    parser: str = AUTO
    variables: Mapping[str, Any] = field(default_factory=dict)


class Marks(NamedTuple):
    """The marks around a model's thoughts."""

    start: str
    end: str

    @property
    def closing(self) -> str:
        """What ends thoughts in a prompt, as chat templates write it."""
        return f"\n\n{self.end}\n\n"


THINK = Marks("<think>", "</think>")
MARKS = (
    THINK,
    Marks("<thinking>", "</thinking>"),
    Marks("<thought>", "</thought>"),
    Marks("<seed:think>", "</seed:think>"),
    Marks("[THINK]", "[/THINK]"),
    Marks("◁think▷", "◁/think▷"),
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),
    Marks("<|begin_of_thought|>", "<|end_of_thought|>"),
    Marks("<|channel|>analysis<|message|>", "<|start|>assistant<|channel|>final<|message|>"),
)
"""Those that known models write; the last are gpt-oss's."""


def find_marks(prompt: str) -> Marks | None:
    """The marks of which a prompt has at least one."""
    return next((marks for marks in MARKS if marks.start in prompt or marks.end in prompt), None)


def find_open_marks(prompt: str) -> Marks | None:
    """The marks of the thoughts that a prompt begins and does not end."""
    found = max(MARKS, key=lambda marks: prompt.rfind(marks.start))
    begin = prompt.rfind(found.start)
    return found if begin >= 0 and found.end not in prompt[begin:] else None


def find_named_marks(texts: Iterable[str]) -> frozenset[Marks]:
    """The marks of which at least one is in the texts."""
    said = tuple(texts)
    return frozenset(marks for marks in MARKS if any(mark in text for mark in marks for text in said))


def find_requested_marks(conversation: Conversation) -> frozenset[Marks]:
    """The marks that the system's or the user's turns contain."""
    return find_named_marks(turn.text for turn in conversation.turns() if turn.role != "assistant")


@dataclass(frozen=True, slots=True)
class Split:
    """A reply in its two parts. A reply that was still thinking was cut, whatever ended it."""

    text: str
    thoughts: str
    finish_reason: ReplyEnd


@dataclass
class Habit:
    """What is known about how a model's replies begin. ``marks``: those of thoughts that the prompt has opened.
    ``certain``: it is known from the chat template; else from earlier replies, which say less about the next."""

    opening: Opening = "plain"
    marks: Marks = THINK
    certain: bool = False

    @property
    def thinks(self) -> bool:
        return self.opening in ("tagged", "open")

    def splitter(self, asked: frozenset[Marks] = frozenset(), way: Way = "free") -> "Splitter":
        """For one reply that is asked for in that way."""
        opening = self.opening
        if opening == "open" and way != "free":
            opening = "tagged" if way == "direct" else "unknown"
        return Splitter(opening, self.marks, asked, self.certain)

    def learn(self, reply: "Splitter", finish_reason: ReplyEnd) -> None:
        """Learn from how a reply began that was free to think. Callers can make a model write anything, so a reply only
        settles whether the prompt opens thoughts, and never for good."""
        if self.certain:
            return
        if self.opening == "unknown" and reply.closed_alone:
            self.opening = "open"
        elif self.opening in ("unknown", "open") and finish_reason == "stop" and not reply.thought:
            self.opening = "unknown" if self.opening == "open" else "plain"


@dataclass
class Splitter:
    """Splits one reply, piece by piece as it is written.

    ``tagged``: it began with an opening mark. ``closed_alone``: it had a closing mark without one. ``thought``: it had
    any thoughts, once it has ended.
    """

    opening: Opening = "plain"
    marks: Marks = THINK
    asked: frozenset[Marks] = frozenset()
    certain: bool = False
    tagged: bool = False
    closed_alone: bool = False
    thought: bool = False
    _state: Literal["before", "inside", "held", "after", "text"] = "before"
    _waiting: str = ""
    _blocks: int = 0
    _held: list[str] = field(default_factory=list)
    _written: list[str | Thought] = field(default_factory=list)

    @classmethod
    def after(cls, marks: Marks, asked: frozenset[Marks]) -> "Splitter":
        """For what comes after a block of thoughts that was found already."""
        return cls("tagged", marks, asked, tagged=True, _state="after")

    def feed(self, piece: str, ids: Sequence[int] = ()) -> list[str | Thought]:
        """The pieces that are certain now. ``ids``: the piece's tokens, not needed here."""
        self._waiting += piece
        return self._record(self._take_certain())

    def end(self, finish_reason: ReplyEnd) -> tuple[list[str | Thought], Split]:
        """The rest, and the whole."""
        rest, self._waiting = "".join([*self._held, self._waiting]), ""
        thinking = self._state == "inside" or (self._state == "before" and self.opening == "open")
        if not thinking:
            last = self._record([rest.lstrip() if self._state == "after" else rest])
        elif finish_reason == "stop" and not (self.tagged or self.certain):
            # It was taken for thoughts because earlier replies began with theirs, and it came to its end.
            everything = "".join(str_of(piece) for piece in self._written) + rest
            self._written, thinking = [], False
            last = self._record([everything])
        else:
            last = self._record([Thought(rest)])
        thoughts = "".join(piece.text for piece in self._written if isinstance(piece, Thought)).strip()
        text = "".join(piece for piece in self._written if isinstance(piece, str))
        self.thought = thinking or self.tagged or self.closed_alone
        return last, Split(text, thoughts, "length" if thinking else finish_reason)

    def _record(self, pieces: Iterable[str | Thought]) -> list[str | Thought]:
        made = [piece for piece in pieces if str_of(piece)]
        self._written += made
        return made

    def _take_certain(self) -> Iterator[str | Thought]:
        while self._waiting:
            state = self._state
            match state:
                case "before" | "after":
                    yield from self._open_block()
                case "inside" | "held":
                    yield from self._take_thought()
                case "text":
                    yield self._waiting
                    self._waiting = ""
            if self._state == state:
                return

    def _open_block(self) -> Iterator[Thought]:
        """Find out whether a block of thoughts begins here."""
        begun = self._waiting.lstrip()
        is_far = len(self._waiting) - len(begun) > MOST_BLANKS
        expected = [] if is_far else self._expected_marks()
        if any(len(begun) < len(marks.start) and marks.start.startswith(begun) for marks in expected):
            return
        found = next((marks for marks in expected if begun.startswith(marks.start)), None)
        if found is not None:
            if self._state == "after":
                yield Thought("\n\n")
            self.tagged = self.tagged or self.opening != "open"
            self._blocks += 1
            self._enter("inside", begun.removeprefix(found.start), found)
        elif self._state == "after" and is_far:
            self._enter("text", self._waiting)
        elif self._state == "after":
            if begun:
                blank = self._waiting.removesuffix(begun)
                self._enter("text", (blank.rpartition("\n")[2] if "\n" in blank else "") + begun)
        elif self.opening == "open":
            self._enter("inside", self._waiting)
        elif self.opening == "unknown" and self.marks not in self.asked:
            self._enter("held", self._waiting)
        else:
            self._enter("text", self._waiting)

    def _enter(
        self, state: Literal["inside", "held", "after", "text"], waiting: str, marks: Marks | None = None
    ) -> None:
        self._state, self._waiting = state, waiting
        self.marks = marks or self.marks

    def _expected_marks(self) -> Iterable[Marks]:
        """The marks that may open a block here. The first block of a model that thinks is its own in any case."""
        if self.opening == "whole":
            return []
        if self._state == "after":
            return [] if self.marks in self.asked or self._blocks >= MOST_BLOCKS else [self.marks]
        return [marks for marks in MARKS if self.opening in ("tagged", "open") or marks not in self.asked]

    def _take_thought(self) -> Iterator[Thought]:
        """What is known to be thought: all up to the closing mark, and before that, unless it is held, what cannot be
        the mark's beginning."""
        end = self.marks.end
        at = self._waiting.find(end)
        if at >= 0:
            self.closed_alone = not self.tagged
            thought = "".join([*self._held, self._waiting[:at]])
            self._held.clear()
            self._enter("after", self._waiting[at + len(end) :])
            yield Thought(thought)
            return
        sure = len(self._waiting) - partial_mark_length(self._waiting, end)
        thought, self._waiting = self._waiting[:sure], self._waiting[sure:]
        if self._state == "held":
            self._held.append(thought)
        else:
            yield Thought(thought)


def str_of(piece: str | Thought) -> str:
    return piece.text if isinstance(piece, Thought) else piece


def partial_mark_length(text: str, mark: str) -> int:
    """How many characters at the end of a text may be the beginning of a mark."""
    lengths = range(min(len(mark) - 1, len(text)), 0, -1)
    return next((length for length in lengths if text.endswith(mark[:length])), 0)
