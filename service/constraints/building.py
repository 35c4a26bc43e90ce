"""Builds the machine of a plan: sentences, the gaps between words and sentences, blocks, and the beginning."""

from collections.abc import Sequence

from service.constraints.alphabet import literal
from service.constraints.amounts import PER_POSTSCRIPT, count_words
from service.constraints.conditions import ALWAYS, NEVER, Condition, at_least, every, less, negate, some
from service.constraints.ends import begin_after_prefix
from service.constraints.folding import fold_gaps
from service.constraints.lexemes import quote
from service.constraints.sentences import Sentences


class Builder(Sentences):
    """Builds a grammar from a plan.

    >>> Builder(make_plan(constraints, cap=60)).build()
    """

    def build(self) -> str:
        self._define_terminals()
        end = self._make_end()
        for place, first in (("S", True), ("M", False)):
            self._add_words(place, first=first, end=end)
        self._add_gaps()
        self._add_start()
        self.machine = fold_gaps(self.machine)
        return self.machine.write(self.fields)

    def _enter(self, place: str) -> Condition:
        """Whether anything can be read at a place."""
        return some(*(step.condition for step in self.machine.places.get(place, ())))

    def _add_gaps(self) -> None:
        machine, plan, lexicon = self.machine, self.plan, self.lexicon
        grows = self._block_grows if self._breaks_lines else ALWAYS
        machine.add("A", "SPACE", "M", every(grows, self._enter("M")))
        another = every(self._sentences_left(0), self._kept_for_blocks, self._room(0, -2), self._goes_on)
        needed_next = every(self._is_needed, self._kept_for_blocks, self._goes_on)
        start = some(another, needed_next)
        hurry = (
            negate(every(self._lacks_postscript, at_least(self.budget, (self.cap or 0) * 3 // 4)))
            if (self.postscript is not None and self.cap is not None)
            else ALWAYS
        )
        machine.add("E", "SPACE", "S", every(start, self._before_deadline, hurry, self._enter("S")))
        if plan.unit is not None:
            self._add_blocks()
        elif not plan.single_line:
            self._define("NEWLINE", lexicon.newline())
            machine.add("E", "NEWLINE", "S", every(start, hurry, self._enter("S")))
            if not lexicon.endings:
                machine.add("A", "NEWLINE", "S", every(start, hurry, self._enter("S")))
        if self.postscript is not None:
            self._add_postscript()

    @property
    def _kept_for_blocks(self) -> Condition:
        """Whether a sentence more leaves one for each block that has to come."""
        plan = self.plan
        if plan.sentences is None or plan.sentences.most is None or self.blocks is None or self._breaks_lines:
            return ALWAYS
        parts = []
        for missing in range(1, plan.blocks.least + 1):
            begun = plan.blocks.least - missing
            parts.append(some(at_least(self.blocks, begun + 1), less(self.sentences, plan.sentences.most - missing)))
        return every(*parts)

    def _add_blocks(self) -> None:
        plan = self.plan
        if plan.unit in ("numbered", "sections"):
            self._add_item_start()
        if plan.unit == "parts":
            self._add_parts()
        most = plan.blocks.most
        places = ("A", "E") if self._breaks_lines or (not self.lexicon.endings and plan.unit != "parts") else ("E",)
        counts = self._block_counts()
        for place in places:
            left = ALWAYS if most is None else less(self.blocks, most)
            opened = place == "A" and self.lexicon.endings
            more = ALWAYS if opened else self._sentences_left(0)
            first = "M" if opened else "S"
            for exact, lexemes, to, words in counts:
                start = to or first
                needed = every(left, exact, more, less(self.blocks, plan.blocks.least))
                extra = every(left, exact, more, at_least(self.blocks, plan.blocks.least), self._goes_on)
                extra = every(extra, some(self._room(words, -2), self._is_needed if words == 0 else NEVER))
                change = (self.blocks, 1) if self.blocks is not None else None
                self.machine.add(place, lexemes, start, needed, self._spend(words - self.per_block), change)
                self.machine.add(place, lexemes, start, extra, self._spend(words), change)

    def _block_counts(self) -> Sequence[tuple[Condition, tuple[str, ...], str | None, int]]:
        """What begins a block, by the number of blocks before it: its lexemes, where it leads, and its words."""
        plan, define = self.plan, self._define
        top = max(plan.blocks.least, min(plan.blocks.most or 20, 20))
        match plan.unit:
            case "lines":
                return [(ALWAYS, (define("LINE_END", '"\\n"' if self.lexicon.endings else "/\\n{1,2}/"),), None, 0)]
            case "bullets":
                marker = plan.marker or "-"
                return [(ALWAYS, (define("BULLET", quote(f"\n{marker} ")),), None, count_words(marker))]
            case "numbered":
                between = define("LINE_END", '"\\n"')
                return [
                    (self._blocks_are(count), (between, define(f"NUMBER{count}", quote(f"{count + 1}. "))), "ITEM", 1)
                    for count in range(top)
                ]
            case "sections":
                between, words = define("BETWEEN", '"\\n\\n"'), count_words(plan.marker) + 1
                return [
                    (
                        self._blocks_are(count),
                        (between, define(f"SECTION{count}", quote(f"{plan.marker} {count + 1}\n"))),
                        "ITEM",
                        words,
                    )
                    for count in range(top)
                ]
            case "parts":
                return [(ALWAYS, (define("BETWEEN", rf"/\n{{1,2}}{literal(plan.marker)}\n{{1,2}}/"),), "PART2", 0)]
            case _:
                plain = (define("BETWEEN", quote(f"\n{plan.marker}\n" if plan.marker else "\n\n")),)
                found: list[tuple[Condition, tuple[str, ...], str | None, int]] = []
                last = max(plan.starts, default=1)
                for count in range(1, last):
                    if count + 1 in plan.starts:
                        lexemes, words = self._write_start(count + 1)
                        found.append((self._blocks_are(count), (*plain, *lexemes), "A", words))
                    else:
                        found.append((self._blocks_are(count), plain, None, 0))
                return [*found, (at_least(self.blocks, last), plain, None, 0)]

    def _blocks_are(self, count: int) -> Condition:
        """Whether exactly so many blocks have begun."""
        return every(at_least(self.blocks, count), less(self.blocks, count + 1))

    def _write_start(self, paragraph: int) -> tuple[tuple[str, ...], int]:
        lexemes: list[str] = []
        words = self.plan.starts[paragraph].split()
        for index, word in enumerate(words):
            definition = quote(word) if index + 1 < len(words) else self.lexicon.fixed(word)
            lexemes += [self._define(f"START{paragraph}_{index}", definition), "SPACE"]
        return tuple(lexemes[:-1]), len(words)

    def _add_postscript(self) -> None:
        marker = self.plan.postscript
        self._define("BLANK", r"/\n{1,2}/")
        words = marker.split()
        lexemes = ["BLANK"]
        for index, word in enumerate(words):
            lexemes += [self._define(f"POSTSCRIPT{index}", quote(word)), "SPACE"]
        change = (self.postscript, 1) if self.postscript is not None else None
        spent = self._spend(len(words) - PER_POSTSCRIPT)
        self.machine.add("E", lexemes, "M", less(self.postscript, 1), spent, change)

    # the beginning

    def _add_start(self) -> None:
        plan, machine = self.plan, self.machine
        opened = ("OPEN",) if self.lexicon.quoted and not plan.prefix else ()
        if opened:
            marked = plan.unit in ("bullets", "numbered", "sections") and not plan.title
            self._define("OPEN", '"\\"\\n"' if marked else '"\\""')  # a marker is at the beginning of a line
        place = "T"
        if plan.prefix:
            machine.start = begin_after_prefix(self)
            return
        machine.start = place
        if plan.title:
            self._add_title(opened)
            place, opened = "AFTER_TITLE", ()
        change = (self.blocks, 1) if self.blocks is not None else None
        first_words = self._heading_words - (self.per_block if plan.blocks.least else 0)
        if plan.unit == "numbered":
            machine.add(
                place,
                (*opened, self._define("NUMBER_FIRST", '"1. "')),
                "ITEM",
                ALWAYS,
                self._spend(first_words),
                change,
            )
        elif plan.unit == "bullets":
            marker = plan.marker or "-"
            first = self._define("BULLET_FIRST", quote(f"{marker} "))
            machine.add(place, (*opened, first), "S", ALWAYS, self._spend(first_words), change)
        elif plan.unit == "sections":
            first = self._define("SECTION_FIRST", quote(f"{plan.marker} 1\n"))
            machine.add(place, (*opened, first), "ITEM", ALWAYS, self._spend(first_words), change)
        elif plan.unit == "parts":
            machine.add(place, opened, "PART1", ALWAYS, change)
        else:
            machine.add(place, opened, "S", ALWAYS, change)

    def _add_item_start(self) -> None:
        """The first word of a numbered item is no month and no number, so that "1. May, 2024" is not one, and that of a
        section is no heading."""
        plan, lexicon = self.plan, self.lexicon
        self._define("ITEM_WORD", lexicon.item_word(plan.avoided_in_blocks, numbered=plan.unit == "sections"))
        room = some(self._room(1, -1), every(self._is_needed, self._room(1, 1)))
        self.machine.add("ITEM", "ITEM_WORD", "A", room, self._spend(1))

    def _add_parts(self) -> None:
        """The first letters of the two parts are from different halves of the alphabet, so that the parts differ."""
        room = some(self._room(1, -1))
        for number in (1, 2):
            name = self._define(f"PART_WORD{number}", self.lexicon.half_word(number))
            self.machine.add(f"PART{number}", name, "A", room, self._spend(1))

    def _add_title(self, opened: tuple[str, ...]) -> None:
        machine = self.machine
        first = self.machine.initial.get("budget", 0)
        self._define("TITLE_OPEN", '"<<"')
        separate = self.lexicon.endings or self.plan.unit == "paragraphs"
        self._define("TITLE_CLOSE", quote(">>\n\n") if separate else r"/>>\n{1,2}/")
        self._define("TITLE_WORD", self.lexicon.title_word())
        machine.add("T", (*opened, "TITLE_OPEN"), "TITLE")
        machine.add("TITLE", "TITLE_WORD", "TITLE_NEXT", ALWAYS, self._spend(1))
        few = less(self.budget, first + 8) if self.budget is not None else ALWAYS
        machine.add("TITLE_NEXT", "SPACE", "TITLE", every(few, self._room(1, -4)))
        machine.add("TITLE_NEXT", "TITLE_CLOSE", "AFTER_TITLE")
