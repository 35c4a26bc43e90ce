"""The given beginning and the demanded end of a text, in the terms of the machine that goes on between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import regex

from service.constraints.algebra import Constraint
from service.constraints.alphabet import CAPITALS, CASELESS, matches
from service.constraints.conditions import ALWAYS
from service.constraints.lexemes import ends_certainly, quote
from service.constraints.plan import MARKS_AROUND, Misfit, Plan

if TYPE_CHECKING:
    from service.constraints.building import Builder


@dataclass(frozen=True, slots=True)
class Suffix:
    """The end of a text.

    text: what is written. final: a single mark that ends the last word, instead.
    words, sentences: how many it brings. continues: whether it goes on with the sentence before it.
    lined: whether a line of its own may hold it.
    """

    text: str = ""
    final: str = ""
    words: int = 0
    sentences: int = 0
    continues: bool = False
    lined: bool = False

    @classmethod
    def of(cls, plan: Plan) -> "Suffix":
        """Read the plan's suffix. Raises Misfit if what it brings cannot be counted."""
        text, lexicon = plan.suffix, plan.lexicon
        if not text:
            return cls()
        if len(text) == 1 and text in ".!?…":
            return cls(final=text)
        source = plan.sources["suffix"]
        pieces = text.split()
        if not any(map(str.isalnum, pieces[0])):
            raise Misfit(source, "it begins with a mark")
        if lexicon.case is not None and text != getattr(text, lexicon.case)():
            raise Misfit(source, "it does not fit a rule about case")
        if not all(map(lexicon.has, text)):
            raise Misfit(source, "it has forbidden characters")
        counts = plan.words.source is not None or plan.sentences is not None
        if counts and not all(_is_countable(plan, piece) for piece in pieces):
            raise Misfit(source, "its words cannot be counted")
        continues = not matches(f"[{CAPITALS}{CASELESS}]", pieces[0][:1])
        if plan.sentences is not None and any(piece[-1] in ".!?" for piece in pieces[:-1]):
            raise Misfit(source, "its sentences cannot be counted")
        if "\n" in text and (plan.unit in ("lines", "paragraphs") or plan.single_line):
            raise Misfit(source, "it has several lines")
        folded = {piece.strip(MARKS_AROUND).casefold() for piece in pieces}
        if folded & {word.casefold() for word, _ in lexicon.excluded}:
            raise Misfit(source, "another rule excludes or counts one of its words")
        if continues and plan.postscript:
            raise Misfit(source, "it does not fit a postscript")
        lined = plan.unit not in ("lines", "paragraphs") and not plan.single_line and not continues
        return cls(text, "", len(pieces), 0 if continues else 1, continues, lined)

    def write(self, define: Callable[[str, str], str]) -> Sequence[tuple[str, ...]]:
        """The lexemes of the end, in each way to begin it."""
        if not self.text:
            return []
        lexemes = []
        for index, piece in enumerate(regex.findall(r"\S+|\s+", self.text)):
            lexemes.append(define(f"END{index}", quote(" " if piece.isspace() and "\n" not in piece else piece)))
        ways = [("SPACE", *lexemes)]
        if self.lined:
            ways.append((define("END_LINE", "/\\n{1,2}/"), *lexemes))
        return ways


def _is_countable(plan: Plan, piece: str) -> bool:
    return matches(plan.lexicon.word_pattern, piece) or matches(plan.lexicon.stop_pattern, piece)


def begin_after_prefix(builder: "Builder") -> str:
    """Count what the given beginning brings, and return the place where the text goes on."""
    plan, lexicon, machine = builder.plan, builder.lexicon, builder.machine
    text = plan.prefix
    pieces = text.split()
    source = plan.sources["prefix"]
    if lexicon.case is not None and text != getattr(text, lexicon.case)():
        raise Misfit(source, "it does not fit a rule about case")
    if not all(map(lexicon.has, text)):
        raise Misfit(source, "it has forbidden characters")
    if "\n" in text and (plan.unit is not None or plan.sentences is not None or plan.single_line):
        raise Misfit(_dearest(plan) or source, "the given beginning has several lines")
    counts = plan.words.source is not None or plan.sentences is not None or plan.unit is not None
    if counts and not all(_is_countable(plan, piece) for piece in pieces):
        raise Misfit(_dearest(plan) or source, "the words of the given beginning cannot be counted")
    bare = [piece.strip(MARKS_AROUND) for piece in pieces]
    folded = [each.casefold() for each in bare]
    for word, cased in plan.excluded:
        if (word in bare) if cased else (word.casefold() in folded):
            raise Misfit(source, "it has an excluded word")
    spent = len(pieces)
    for quota, field in builder.quotas:
        found = 0
        for phrase in quota.phrases:
            if len(phrase) == 1:
                found += bare.count(phrase[0]) if quota.cased else folded.count(phrase[0].casefold())
            elif quota.most is not None:
                raise Misfit(quota.source, "a phrase of several words cannot be counted exactly")
        if quota.most is not None and found > quota.most:
            raise Misfit(quota.source, "the given beginning has it too often")
        if found and quota.form == "phrase":
            machine.initial[field.name] = min(found, field.largest)
            spent -= quota.words * min(found, quota.least)
    sentences = 0
    if plan.sentences is not None:
        for piece in pieces:
            if piece[-1] in ".!?":
                if not ends_certainly(lexicon, piece[:-1]):
                    raise Misfit(
                        plan.sentences.source or source, "the sentences of the given beginning cannot be counted"
                    )
                sentences += 1
        spent -= 2 * min(sentences, plan.sentences.least)
        machine.initial["sentences"] = sentences
        if plan.sentences.most is not None and sentences >= plan.sentences.most:
            raise Misfit(plan.sentences.source or source, "the given beginning has as many already")
    if builder.budget is not None:
        machine.initial["budget"] += spent
        if builder.cap is not None and machine.initial["budget"] > builder.cap - 2:
            raise Misfit(_dearest(plan) or source, "the given beginning leaves no room for it")
    if plan.unit in ("lines", "paragraphs", "parts"):
        machine.initial["blocks"] = 1
    if pieces[-1][-1] in ".!?。！？":
        return "E"
    if not pieces[-1][-1].isalnum():
        return "A"
    marks = "".join(filter(lexicon.has, ",:"))
    if marks:
        machine.terminals["TAIL"] = f"/{lexicon.kept(marks)}/"
        machine.add("P", "TAIL", "A", ALWAYS)
    machine.add("P", (), "A", ALWAYS)
    return "P"


def _dearest(plan: Plan) -> Constraint | None:
    """The constraint that needs the words of the beginning to be counted, and changes texts most."""
    sources = [plan.words.source, plan.sentences.source if plan.sentences else None, plan.blocks.source]
    found = [source for source in sources if source is not None]
    return max(found, key=lambda source: source.distortion, default=None)
