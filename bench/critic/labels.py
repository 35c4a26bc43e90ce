"""The labelled set: requests, each with a right, a subtly wrong and a plainly wrong reply, and pairs of replies that
differ in looks only. Lines whose split is ``held`` are never used while tuning."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Len
from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as strict

DATA = Path(__file__).parent / "data"
Split = Literal["tune", "held"]
Kind = Literal["right", "subtle", "plain"]
KINDS: Sequence[Kind] = ("right", "subtle", "plain")
Words = Annotated[tuple[Annotated[tuple[Annotated[str, Len(1)], ...], Len(1)], ...], Len(1)]
_STRICT = ConfigDict(extra="forbid")


@strict(frozen=True, config=_STRICT)
class Message:
    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Len(1)]


@strict(frozen=True, config=_STRICT)
class Right:
    text: Annotated[str, Len(1)]


@strict(frozen=True, config=_STRICT)
class Wrong:
    """A wrong reply. ``fault``: what is wrong with it. ``keywords``: a critique names the fault if it has one word of
    every list."""

    text: Annotated[str, Len(1)]
    fault: Annotated[str, Len(1)]
    keywords: Words

    def is_named_by(self, critique: str) -> bool:
        said = critique.casefold()
        return all(any(word.casefold() in said for word in words) for words in self.keywords)


@strict(frozen=True, config=_STRICT)
class Item:
    """One request with its three replies."""

    id: str
    split: Split
    task: str
    language: Literal["en", "zh"]
    parameters: Mapping[str, str]
    messages: Annotated[tuple[Message, ...], Len(1)]
    right: Right
    subtle: Wrong
    plain: Wrong

    def text(self, kind: Kind) -> str:
        replies: Mapping[Kind, Right | Wrong] = {"right": self.right, "subtle": self.subtle, "plain": self.plain}
        return replies[kind].text


@strict(frozen=True, config=_STRICT)
class Pair:
    """Two replies of the same ``quality``, of which ``b`` is longer, in another style, flatters or is padded."""

    id: str
    split: Split
    kind: Literal["length", "style", "flattery", "padding"]
    task: str
    parameters: Mapping[str, str]
    messages: Annotated[tuple[Message, ...], Len(1)]
    a: Right
    b: Right
    quality: Literal["right", "wrong"]


@dataclass(frozen=True)
class Labels:
    items: Sequence[Item] = field(default_factory=tuple)
    pairs: Sequence[Pair] = field(default_factory=tuple)

    def of(self, split: Split) -> "Labels":
        """The part that belongs to a split."""
        return Labels(
            [item for item in self.items if item.split == split], [pair for pair in self.pairs if pair.split == split]
        )

    def every(self, step: int) -> "Labels":
        """Every ``step``-th item and pair, which are of all tasks and languages alike."""
        return Labels(self.items[::step], self.pairs[::step])


_ITEM: TypeAdapter[Item] = TypeAdapter(Item)
_PAIR: TypeAdapter[Pair] = TypeAdapter(Pair)


def load_labels(folder: Path = DATA) -> Labels:
    """Read all files. Raises Pydantic's ValidationError for a line of another form."""
    files = sorted(folder.glob("*/*.jsonl"))
    items = [_ITEM.validate_json(line) for file in files if file.stem != "pairs" for line in _lines(file)]
    pairs = [_PAIR.validate_json(line) for file in files if file.stem == "pairs" for line in _lines(file)]
    return Labels(items, pairs)


def _lines(file: Path) -> Iterable[str]:
    return file.read_text(encoding="utf-8").splitlines()
