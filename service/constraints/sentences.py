"""The steps of a machine that read words: plain ones, those with a stop, keywords, and the last of all.

Places: S begins a sentence, M is before another word of it, A follows a word, E follows a word with a stop.
"""

from collections.abc import Callable, Sequence

from service.constraints.amounts import PER_SENTENCE, Amounts
from service.constraints.automaton import Change
from service.constraints.conditions import ALWAYS, NEVER, Condition, Field, at_least, every, less, negate, some
from service.constraints.lexemes import can_begin_sentences, ends_certainly
from service.constraints.plan import Quota

SHORT = 25
"""Words of a text that may end without a stop, such as a title or a query."""


class Sentences(Amounts):
    """Adds the steps of words and the ends to the machine."""

    def _define(self, name: str, definition: str) -> str:
        self.machine.terminals.setdefault(name, definition)
        return name

    def _define_terminals(self) -> None:
        lexicon = self.lexicon
        for name, definition in lexicon.terminals().items():
            self._define(name, definition)
        self._define("SPACE", '" "')

    def _make_end(self) -> Callable[..., Condition]:
        """Add the ends, and return when a stop may be the last thing."""
        machine, close = self.machine, ("CLOSE",) if self.lexicon.quoted else ()
        if close:
            self._define("CLOSE", '"\\""')
        tails = self.suffix.write(self._define)
        if self.suffix.final:
            machine.add("Z", close, None)
            return lambda **_: NEVER
        for tail in tails or [()]:
            if self._ends_after_words:
                condition = self._open_end() if self.sentences is not None else self._may_end()
                machine.add("A", (*tail, *close), None, every(condition, self._may_stay_open()))
            if self._ends_after_stops:
                machine.add("E", (*tail, *close), None, self._may_end())
        return self._may_end if self._ends_after_stops else lambda **_: NEVER

    def _may_stay_open(self, cost: int = 0) -> Condition:
        """Whether a text of this length may end without a stop, once it has ``cost`` more words.

        For each token that a word may end before, llguidance goes back over all words if the text may end there. Of a
        letter that may not appear, these are all tokens with it.
        """
        if self.suffix.words or not self.lexicon.can_stop:
            return ALWAYS
        if self.lexicon.lacks_letters:
            return NEVER
        return ALWAYS if self._breaks_lines else less(self.budget, SHORT - cost)

    def _open_end(self) -> Condition:
        """Whether the text may end in an open sentence, which gives back what was reserved for it."""
        needed = self._is_needed
        return some(
            every(needed, self._may_end(ahead=-PER_SENTENCE, sentence=1)),
            every(negate(needed), self._may_end(sentence=1)),
        )

    def _add_words(self, place: str, *, first: bool, end: Callable[..., Condition]) -> None:
        """Add the steps that read a word. ``first``: it begins a sentence."""
        word, stop = ("FIRST", "ONLY") if first else ("WORD", "STOP")
        steered = self._missing_first() if first else ALWAYS
        self._add_word(place, (word,), 1, None, steered if first else self._free_choice())
        self._add_stop(place, (stop,), 1, None, end, steered)
        if self.lexicon.endings and not first and not self.plan.suffix:
            self._add_last(place)
        if self.suffix.final:
            self._add_final(place, first=first)
        for quota, field in self.quotas:
            self._add_quota(place, quota, field, first=first, end=end)

    def _free_choice(self) -> Condition:
        """Whether any word may come inside a sentence. Late in a block or a text, what is missing comes first."""
        parts = [self._sentence_grows if self._breaks_lines else self._before_deadline]
        if self.cap is not None:
            parts += [self._quota_share(quota, field) for quota, field in self.quotas if quota.form != "phrase"]
        return every(*parts)

    def _missing_first(self) -> Condition:
        """Whether a sentence may begin with any word. From the middle of the text on, it begins with a missing one."""
        if self.cap is None:
            return ALWAYS
        middle = less(self.budget, self.cap // 2)
        phrases = [(quota, field) for quota, field in self.quotas if quota.form == "phrase" and self._can_begin(quota)]
        return every(*(some(at_least(field, quota.least), middle) for quota, field in phrases))

    def _quota_share(self, quota: Quota, field: Field) -> Condition:
        cap = self.cap or 0
        options = [at_least(field, quota.least)]
        for count in range(quota.least):
            limit = cap * (count + 1) // (quota.least + 1)
            options.append(every(at_least(field, count), less(field, count + 1), less(self.budget, limit)))
        return some(*options)

    def _add_word(
        self, place: str, lexemes: Sequence[str], cost: int, counted: Field | None, condition: Condition
    ) -> None:
        """Add a step that reads a word without a stop. One more has to fit after it, unless the text may end here."""
        room = some(self._room(cost, -1), every(self._is_needed, self._room(cost, 1)))
        lands = self.plan.lands and self.lexicon.can_stop
        if self.suffix.continues or (self._ends_after_words and not lands):
            room = some(room, every(self._room(cost, 0), negate(self._lacks_blocks), self._may_stay_open(cost)))
        count = (counted, 1) if counted else None
        self.machine.add(place, lexemes, "A", every(condition, room), self._spend(cost), count)

    def _spend(self, words: int) -> Change | None:
        return (self.budget, words) if self.budget is not None and words else None

    def _add_stop(
        self,
        place: str,
        lexemes: Sequence[str],
        cost: int,
        counted: Field | None,
        end: Callable[..., Condition],
        condition: Condition,
    ) -> None:
        """Add the steps that read a word with a stop, for a sentence that has to come and for one more."""
        needed, count = self._is_needed, (counted, 1) if counted else None
        sentence: Change | None = (self.sentences, 1) if self.sentences is not None else None
        if needed != NEVER:
            after = cost - PER_SENTENCE
            next_is_needed = less(self.sentences, self._needed_sentences - 1)
            goes_on = every(self._sentences_left(1), some(next_is_needed, self._room(after, -2), self._lacks_blocks))
            ends = end(ahead=after, sentence=1, filled=counted)
            room = self._room(cost, 2) if cost > 1 else ALWAYS
            self.machine.add(
                place,
                lexemes,
                "E",
                every(condition, needed, room, some(ends, goes_on)),
                self._spend(after),
                sentence,
                count,
            )
        goes_on = every(self._sentences_left(1), some(self._room(cost, -2), self._lacks_blocks))
        ends = end(ahead=cost, sentence=1, filled=counted)
        room = self._room(cost, 0) if cost > 0 else ALWAYS
        self.machine.add(
            place,
            lexemes,
            "E",
            every(condition, negate(needed), room, some(ends, goes_on)),
            self._spend(cost),
            sentence,
            count,
        )

    def _add_last(self, place: str) -> None:
        """Add the last word of all, whose sentence ends in any case: "in 1990."."""
        needed = self._is_needed
        for condition, cost in ((needed, 1 - PER_SENTENCE), (negate(needed), 1)):
            if condition != NEVER:
                ends = self._may_end(ahead=cost, sentence=1)
                room = self._room(1, 0) if cost > 0 else ALWAYS
                self.machine.add(
                    place,
                    "LAST",
                    "F",
                    every(condition, room, ends),
                    self._spend(cost),
                    (self.sentences, 1),  # type: ignore[arg-type]
                )
        if "F" not in self.machine.places:
            self.machine.add("F", ("CLOSE",) if self.lexicon.quoted else (), None)

    def _add_final(self, place: str, *, first: bool) -> None:
        """Add the last word of a text that has to end with a certain mark."""
        mark = self.suffix.final
        name = self._define("FINAL_FIRST" if first else "FINAL", self.lexicon.final(mark, first=first))
        needed = self._is_needed
        sentence: Change | None = (self.sentences, 1) if self.sentences is not None else None
        for condition, cost in ((needed, 1 - PER_SENTENCE), (negate(needed), 1)):
            if condition != NEVER:
                room = self._room(1, 0) if cost > 0 else ALWAYS
                ends = self._may_end(ahead=cost, sentence=1)
                self.machine.add(place, name, "Z", every(condition, room, ends), self._spend(cost), sentence)

    def _can_begin(self, quota: Quota) -> bool:
        if not self.lexicon.endings or self.lexicon.case is not None:
            return True
        return quota.form == "phrase" and all(
            can_begin_sentences(phrase[0], cased=quota.cased) for phrase in quota.phrases
        )

    def _add_quota(self, place: str, quota: Quota, field: Field, *, first: bool, end: Callable[..., Condition]) -> None:
        if first and not self._can_begin(quota):
            return
        for index, phrase in enumerate(quota.phrases or ((),)):
            words = len(phrase) or 1
            name = f"{quota.name.upper()}_{index}"
            plain, stopped = self._write_phrase(name, quota, phrase, capital=first and self.lexicon.endings)
            missing = less(field, quota.least)
            given_back = words - quota.words
            self._add_word_or_less(place, plain, given_back, field, missing)
            if stopped:
                self._add_stop(place, stopped, given_back, field, end, missing)
            if quota.form == "phrase" and quota.most is None and words > 1:
                continue  # its words may also come one by one
            extra = at_least(field, quota.least)
            if quota.most is not None:
                extra = every(extra, less(field, quota.most))
            self._add_word(place, plain, words, field, extra)
            if stopped:
                self._add_stop(place, stopped, words, field, end, extra)

    def _add_word_or_less(
        self, place: str, lexemes: Sequence[str], cost: int, counted: Field, condition: Condition
    ) -> None:
        self.machine.add(place, lexemes, "A", condition, self._spend(cost), (counted, 1))

    def _write_phrase(
        self, name: str, quota: Quota, phrase: tuple[str, ...], *, capital: bool
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The lexemes of a phrase, and the same with a stop at its end."""
        lexicon = self.lexicon
        if quota.form != "phrase":
            long = self.plan.words.source is None
            plain = self._define(name, lexicon.slot(quota.form, long=long))
            if quota.form == "capitals" and lexicon.endings:
                return (plain,), ()  # it may be an abbreviation
            return (plain,), (self._define(f"{name}_STOP", lexicon.slot(quota.form, long=long, stop=True)),)
        found: list[str] = []
        *heads, tail = phrase
        for index, word in enumerate(heads):
            large = capital and index == 0
            found += [
                self._define(
                    f"{name}_{'C' if large else 'W'}{index}",
                    lexicon.keyword(word, cased=quota.cased, capital=large, last=False),
                ),
                "SPACE",
            ]
        large = capital and not heads
        mark = "C" if large else "W"
        plain = self._define(f"{name}_{mark}", lexicon.keyword(tail, cased=quota.cased, capital=large))
        stopped = self._define(
            f"{name}_{mark}_STOP", lexicon.keyword(tail, cased=quota.cased, capital=large, stop=True)
        )
        if lexicon.endings and (large or not ends_certainly(lexicon, tail, shortest=4 if lexicon.case else 2)):
            return (*found, plain), ()
        return (*found, plain), (*found, stopped)
