"""A verifier of how long the text is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Len

from service.constraints.algebra import Constraint, Counter
from service.evaluators.base import Check, RefusedField, Verifier
from service.evaluators.text.bounds import Bounds, Count, amount, amount_in_chinese
from service.evaluators.text.counting import count_words
from service.evaluators.text.languages import abbreviations
from service.evaluators.text.rewriting import as_lines, blocks_by_rules, merge_lines, merge_paragraphs
from service.evaluators.text.sentences import count_sentences
from service.evaluators.text.trimming import trim_sentences
from service.evaluators.text.words import count_lines, paragraphs, whole_lines

Unit = Literal["characters", "words", "sentences", "paragraphs", "lines"]

_COUNTERS: Mapping[Unit, Callable[[str], int]] = {
    "characters": len,
    "words": count_words,
    "sentences": count_sentences,
    "paragraphs": lambda text: len(paragraphs(text)),
    "lines": count_lines,
}

_CHINESE: Mapping[Unit, tuple[str, str]] = {
    "characters": ("个字符", "（标点和空格也算）"),
    "words": ("字", "（外文和数字每个词算一字，标点不算）"),
    "sentences": ("句话", ""),
    "paragraphs": ("段", ""),
    "lines": ("行", "（空行不算）"),
}
"""By unit: its measure word, and what counts."""


@dataclass(frozen=True, kw_only=True)
class Length(Verifier):
    """How long the text is, without white space around it.

    A character is a code point, so an emoji may be several; a CRLF counts as one. The functions that count the other
    units define them. ``separator``: the line between two paragraphs, by default a blank one.
    """

    type: Literal["length"] = "length"
    unit: Unit
    min: Count | None = None
    max: Count | None = None
    separator: Annotated[str, Len(1, 50)] | None = None

    def __post_init__(self) -> None:
        if self.separator is not None and self.unit != "paragraphs":
            raise RefusedField("separator", "only paragraphs have a separator")
        if self.separator is not None and len(self.separator.strip().splitlines()) != 1:
            raise RefusedField("separator", "it must be one line that is not blank")
        _ = self.bounds  # raises ValueError if min and max make no sense

    @property
    def bounds(self) -> Bounds:
        return Bounds(min=self.min, max=self.max)

    def repair(self, text: str) -> str | None:
        """Lines and paragraphs are joined, and get their separator. Sentences beyond the maximum go from the end."""
        text = as_lines(text)
        if self.unit == "paragraphs":
            repaired = self._repair_paragraphs(text)
        elif self.max is None:
            repaired = None
        elif self.unit == "lines":
            repaired = merge_lines(text, self.max)
        else:
            count, most = _COUNTERS[self.unit], self.max
            repaired = trim_sentences(text, lambda beginning: count(beginning) <= most)
        return repaired if repaired is not None and self.check(repaired)[0].score == 1.0 else None

    def _repair_paragraphs(self, text: str) -> str | None:
        most = len(text) if self.max is None else self.max
        if most == 0:
            return None
        if self.separator is None:
            return "\n\n".join(merge_paragraphs(paragraphs(text), most))
        line = self.separator.strip()
        blocks = paragraphs(text, line)
        if len(blocks) <= most:
            blocks = blocks_by_rules(text)
        kept, rest = blocks[: most - 1], blocks[most - 1 :]
        return f"\n\n{line}\n\n".join(block.strip("\n") for block in [*kept, "\n\n".join(rest)] if block)

    def is_broken(self, beginning: str) -> bool:
        """Sentences do not count here: what follows may show that a stop was not the end of one."""
        if self.max is None or self.unit == "sentences":
            return False
        if self.unit in ("lines", "paragraphs"):
            beginning = whole_lines(beginning)
        return self._count(beginning) > self.max

    def _count(self, text: str) -> int:
        if self.separator is not None:
            return len(paragraphs(text, self.separator.strip()))
        return _COUNTERS[self.unit](text.strip().replace("\r\n", "\n"))

    def constraints(self) -> Sequence[Constraint]:
        avoided = abbreviations() if self.unit == "sentences" else frozenset[str]()
        marker = (self.separator or "").strip()
        return [Constraint(f"length.{self.unit}", Counter(self.unit, self.min or 0, self.max, marker, avoided))]

    def check(self, text: str) -> Sequence[Check]:
        bounds = self.bounds
        order = f"Use {amount(bounds, self.unit)}"
        measure, note = _CHINESE[self.unit]
        chinese = f"篇幅：{amount_in_chinese(bounds, measure)}{note}"
        count = self._count(text)
        if self.separator is not None:
            line = self.separator.strip()
            order += f', with the line "{line}" between them'
            chinese += f"，段与段之间单独用一行“{line}”隔开"
        score, message = bounds.score(count), bounds.verdict(count, self.unit)
        return [Check(self.unit, score, message, f"{order}.", {"zh": f"{chinese}。"})]
