from llguidance import LLMatcher

from service.constraints.automaton import Automaton, find_dead_ends
from service.constraints.conditions import Field, at_least, every, less
from service.constraints.folding import fold_gaps
from tests.support.masked_walks import byte_tokenizer

WORDS, LINES, NAMES = FIELDS = [Field("words", 0, 3), Field("lines", 3, 6), Field("names", 6, 7)]
TERMINALS = {"WORD": "/[a-z]+/", "NAME": '"ann"', "SPACE": '" "', "NEWLINE": '"\\n"', "DASH": '"- "'}


def listed() -> Automaton:
    """One to two items of at most three words, of which one has to be "ann"."""
    machine = Automaton("ITEM", terminals=dict(TERMINALS))
    machine.add("ITEM", "DASH", "BEFORE", less(LINES, 2), (LINES, 1))
    machine.add("BEFORE", "WORD", "AFTER", less(WORDS, 3), (WORDS, 1))
    machine.add("BEFORE", "NAME", "AFTER", less(NAMES, 1), (NAMES, 1))
    machine.add("AFTER", "SPACE", "BEFORE", less(WORDS, 3))
    machine.add("AFTER", ("NEWLINE", "DASH"), "BEFORE", every(less(LINES, 2), less(WORDS, 3)), (LINES, 1))
    machine.add("AFTER", (), None, at_least(NAMES, 1))
    return machine


def accepts(machine: Automaton, text: str) -> bool:
    matcher = LLMatcher(byte_tokenizer(), LLMatcher.grammar_from_lark(machine.write(FIELDS)), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return bool(matcher.try_consume_tokens(list(text.encode())) == len(text) and matcher.is_accepting())


def test_a_folded_machine_takes_the_same_texts() -> None:
    texts = ("- ann", "- a ann", "- ann b\n- c", "- a", "- a b c d", "- ann\n- b\n- c", "- ann ", "- ann\n", "- anna")
    taken = {text for text in texts if accepts(fold_gaps(listed()), text)}
    assert taken == {text for text in texts if accepts(listed(), text)} == {"- ann", "- a ann", "- ann b\n- c"}


def test_no_lexeme_ends_between_a_word_and_its_gap() -> None:
    """A text goes on after a word only if its gap may come, and the end is the only thing that comes without one."""
    folded = fold_gaps(listed())
    read = {lexeme for steps in folded.places.values() for step in steps for lexeme in step.lexemes}
    assert read == {"DASH", "WORD", "NAME", "WORD_SPACE", "NAME_SPACE", "WORD_NEWLINE", "NAME_NEWLINE"}
    assert all(
        step.to == "AFTER_REST" for step in folded.places["BEFORE"] if step.lexemes[-1:] in (("WORD",), ("NAME",))
    )


def test_folding_neither_makes_nor_hides_states_that_lead_nowhere() -> None:
    assert not find_dead_ends(fold_gaps(listed()), FIELDS)
    endless = listed()
    endless.places["AFTER"].pop()
    assert find_dead_ends(fold_gaps(endless), FIELDS)


def test_a_word_is_read_with_a_gap_only_if_the_gap_leads_on() -> None:
    [spaced] = [step for step in fold_gaps(listed()).places["BEFORE"] if step.lexemes == ("WORD_SPACE",)]
    assert spaced.condition == less(WORDS, 2)


def test_gaps_inside_a_step_belong_to_the_word_before_them() -> None:
    machine = Automaton("BEGIN", terminals={**TERMINALS, "YEARS": '"years"'})
    machine.add("BEGIN", ("NAME", "SPACE", "YEARS"), None)
    machine.add("BEGIN", ("SPACE", "NAME"), None)
    folded = fold_gaps(machine)
    assert [step.lexemes for step in folded.places["BEGIN"]] == [("NAME_SPACE", "YEARS"), ("SPACE", "NAME")]
    assert folded.terminals["NAME_SPACE"] == "NAME SPACE"
