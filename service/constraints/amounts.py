"""What a text may have of each thing at a time: counters, and the conditions on them.

The counter ``budget`` holds the words so far and the words that are *reserved* for what has still to come: two for
each sentence, two for each block, the words of each keyword. It may reach the cap. Whatever was reserved costs nothing
when it comes, so there is always room for it, and at the end the budget is the number of words.
"""

from service.constraints.automaton import Automaton
from service.constraints.conditions import (
    ALWAYS,
    NEVER,
    Condition,
    Field,
    Layout,
    at_least,
    every,
    less,
    negate,
    some,
)
from service.constraints.ends import Suffix
from service.constraints.lexemes import Lexicon
from service.constraints.plan import Misfit, Plan, Quota, Range

PER_SENTENCE = 2
PER_BLOCK = 2
PER_POSTSCRIPT = 3
LANDING_SHARE = 8
"""One part in this many of the words is where a text may only go on if it has to."""


class Amounts:
    """The counters of a plan. Raises Misfit if what has to come does not fit into the words."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.lexicon: Lexicon = plan.lexicon
        self.machine = Automaton()
        layout = Layout()
        self.suffix = Suffix.of(plan)
        self._take_off_certain()
        sentences, blocks = plan.sentences, plan.blocks.least if plan.unit is not None and not self._breaks_lines else 0
        if sentences is not None and sentences.most is not None and sentences.source and blocks > sentences.most:
            raise Misfit(sentences.source, f"{blocks} {plan.unit} need more sentences")
        self.cap = plan.cap
        reserved = self._reserved()
        counts_words = plan.cap is not None or plan.words.least > 0
        self.budget = layout.add("budget", (plan.cap or plan.words.least) + reserved + 2) if counts_words else None
        sentences = plan.sentences
        self.sentences = layout.add("sentences", _top(sentences)) if sentences is not None else None
        self.blocks = layout.add("blocks", _top(plan.blocks)) if plan.unit is not None else None
        self.postscript = layout.add("postscript", 1) if plan.postscript else None
        self.quotas: list[tuple[Quota, Field]] = []
        for quota in plan.quotas:
            largest = quota.least if quota.most is None else quota.most
            try:
                self.quotas.append((quota, layout.add(quota.name, largest)))
            except OverflowError:
                raise Misfit(quota.source, "there are too many words to demand") from None
        self.fields = layout.fields
        self.machine.initial["budget"] = reserved

    # what is known beforehand

    def _take_off_certain(self) -> None:
        """Count what the title and the end bring by themselves."""
        plan = self.plan
        if plan.title:
            for counted in (plan.sentences, plan.blocks if plan.unit in ("lines", "paragraphs") else None):
                _take(counted, 1)
        if self.suffix.words:
            _take(plan.words, self.suffix.words)
            if plan.cap is not None:
                plan.cap -= self.suffix.words
            if self.suffix.sentences:
                _take(plan.sentences, self.suffix.sentences)

    def _reserved(self) -> int:
        plan = self.plan
        sentences = plan.sentences.least if plan.sentences is not None else 0
        blocks = plan.blocks.least - (1 if self._begins_in_block else 0) if plan.unit is not None else 0
        quotas = sum(quota.words * quota.least for quota in plan.quotas)
        reserved = PER_SENTENCE * sentences + self.per_block * max(0, blocks) + quotas
        reserved += PER_POSTSCRIPT if plan.postscript else 0
        if plan.cap is not None and reserved + 2 > plan.cap:
            source = next(
                (
                    each
                    for each in (
                        plan.quotas[-1].source if plan.quotas else None,
                        plan.blocks.source if blocks > 1 else None,
                        plan.sentences.source if plan.sentences is not None and sentences > 1 else None,
                    )
                    if each is not None
                ),
                plan.words.source,
            )
            if source is not None:
                raise Misfit(source, "there are too few words for it")
        return reserved

    @property
    def _heading_words(self) -> int:
        """The words that every block begins with, at most."""
        plan = self.plan
        match plan.unit:
            case "numbered":
                return 1
            case "bullets":
                return count_words(plan.marker)
            case "sections":
                return count_words(plan.marker) + 1
            case _:
                return max((len(text.split()) for text in plan.starts.values()), default=0)

    @property
    def per_block(self) -> int:
        """The words that are reserved for a block."""
        return PER_BLOCK + self._heading_words

    @property
    def _begins_in_block(self) -> bool:
        return self.plan.unit in ("lines", "paragraphs", "parts")

    @property
    def _ends_after_words(self) -> bool:
        """Whether a text may end without a stop."""
        if self.suffix.final:
            return False
        if self.suffix.words:
            return self.suffix.continues or not self.lexicon.endings
        return not self.lexicon.endings or self._breaks_lines

    @property
    def _ends_after_stops(self) -> bool:
        return not self.suffix.final and not (self.suffix.words and self.suffix.continues)

    @property
    def _breaks_lines(self) -> bool:
        """Whether blocks are lines, so that one may end without a stop."""
        return self.plan.unit in ("lines", "bullets") or (
            self.plan.unit in ("numbered", "sections") and not self.lexicon.endings
        )

    # conditions. B is the budget, S the sentences that are over, K the blocks that have begun

    def _room(self, cost: int, within: int) -> Condition:
        """Whether the budget is at most ``within`` below the cap after ``cost`` more words."""
        return ALWAYS if self.cap is None else less(self.budget, self.cap - cost + within + 1)

    @property
    def _needed_sentences(self) -> int:
        return self.plan.sentences.least if self.plan.sentences is not None else 0

    @property
    def _is_needed(self) -> Condition:
        """Whether the sentence at work is one of those that have to come."""
        return less(self.sentences, self._needed_sentences) if self._needed_sentences else NEVER

    def _may_end(self, *, ahead: int = 0, sentence: int = 0, filled: Field | None = None) -> Condition:
        """Whether the text may end once the budget has grown by ``ahead`` and so many sentences are over.

        filled: the quota to which a step adds one.
        """
        plan = self.plan
        parts = [at_least(self.budget, plan.words.least - ahead)] if plan.words.least else []
        parts.append(at_least(self.sentences, self._needed_sentences - sentence))
        if plan.sentences is not None and plan.sentences.most is not None:
            parts.append(less(self.sentences, plan.sentences.most - sentence + 1))
        parts.append(at_least(self.blocks, plan.blocks.least))
        parts.append(at_least(self.postscript, 1))
        parts += [at_least(field, quota.least - (field is filled)) for quota, field in self.quotas]
        return every(*parts)

    @property
    def _lacks_blocks(self) -> Condition:
        return some(less(self.blocks, self.plan.blocks.least) if self.blocks else NEVER, self._lacks_postscript)

    @property
    def _lacks_postscript(self) -> Condition:
        return less(self.postscript, 1) if self.postscript is not None else NEVER

    def _sentences_left(self, after: int) -> Condition:
        """Whether another sentence may begin after so many more. Those of the blocks to come are kept for them."""
        plan = self.plan
        if plan.sentences is None or plan.sentences.most is None:
            return ALWAYS
        return less(self.sentences, plan.sentences.most - after)

    @property
    def _before_deadline(self) -> Condition:
        """Whether the block and the sentence at work may still grow: each gets its share of the words."""
        return every(self._block_grows, self._sentence_grows)

    @property
    def _block_grows(self) -> Condition:
        if self.cap is None or self.blocks is None or self.plan.blocks.least < 2:
            return ALWAYS
        return self._share(self.blocks, self.plan.blocks.least, 0)

    @property
    def _sentence_grows(self) -> Condition:
        if self.cap is None or self.sentences is None or self._needed_sentences < 2:
            return ALWAYS
        return self._share(self.sentences, self._needed_sentences, 1)

    def _share(self, field: Field, least: int, ahead: int) -> Condition:
        """Whether the words so far are less than the share of the parts so far, and half a part more."""
        cap, reserved = self.cap or 0, self.per_block if field is self.blocks else PER_SENTENCE
        options = [at_least(field, least - ahead)]
        for count in range(least - ahead):
            limit = cap * (2 * (count + ahead) + 1) // (2 * least) + reserved * (least - count - ahead)
            options.append(every(at_least(field, count), less(field, count + 1), less(self.budget, limit)))
        return some(*options)

    @property
    def _goes_on(self) -> Condition:
        """Whether a text that may end may also go on: not where it lands."""
        soft = self._soft_end()
        if soft is None or not self._ends_after_stops:
            return ALWAYS
        return some(less(self.budget, soft), negate(self._may_end()))

    def _soft_end(self) -> int | None:
        least = self.plan.words.least
        ends = []
        if self.cap is not None:
            ends.append(max(self.cap - max(3, self.cap // LANDING_SHARE), 1))
        if least and self.plan.words.most is None:
            ends.append(least + least * 3 // 10 + 15)
        return max(min(ends), least) if ends else None


def _top(counted: Range) -> int:
    return max(counted.least, counted.most or 0) + 1


def _take(counted: Range | None, by: int) -> None:
    if counted is None:
        return
    counted.less(by)
    if counted.most is not None and counted.most < 1 and counted.source is not None:
        raise Misfit(counted.source, "other rules bring more of it")


def count_words(marker: str) -> int:
    """The words of a marker."""
    return sum(any(map(str.isalnum, piece)) for piece in marker.split())
