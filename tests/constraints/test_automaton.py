from llguidance import LLMatcher

from service.constraints.automaton import Automaton, find_dead_ends
from service.constraints.conditions import Field, at_least, less
from tests.support.masked_walks import byte_tokenizer

WORDS, LINES = Field("words", 0, 3), Field("lines", 3, 6)


def accepts(grammar: str, text: str) -> bool:
    matcher = LLMatcher(byte_tokenizer(), LLMatcher.grammar_from_lark(grammar), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return bool(matcher.consume_tokens(list(text.encode())) and matcher.is_accepting())


def two_lines() -> Automaton:
    machine = Automaton("BEGIN", terminals={"WORD": '"a"', "NEWLINE": '"\\n"'})
    machine.add("BEGIN", (), "LINE", less(WORDS, 7), (LINES, 1))
    machine.add("LINE", "WORD", "AFTER", less(WORDS, 3), (WORDS, 1))
    machine.add("AFTER", "NEWLINE", "LINE", less(LINES, 2), (LINES, 1), (WORDS, -1))
    machine.add("AFTER", (), None, at_least(LINES, 2))
    return machine


def test_counters_are_changed_on_every_way() -> None:
    grammar = two_lines().write([WORDS, LINES])
    assert accepts(grammar, "a\na")
    assert not accepts(grammar, "a")
    assert not accepts(grammar, "a\na\na")


def test_a_text_may_end_right_after_several_changes() -> None:
    """llguidance does not find out by itself that a rule is empty through changed counters."""
    machine = Automaton("BEGIN", terminals={"WORD": '"a"'})
    machine.add("BEGIN", "WORD", "END", less(WORDS, 7), (WORDS, 2), (LINES, 1))
    machine.add("END", (), None, at_least(WORDS, 2))
    machine.add("END", "WORD", "END", less(WORDS, 7), (WORDS, 1))
    assert accepts(machine.write([WORDS, LINES]), "a")


def test_changes_are_not_lost_where_a_place_has_one_unconditional_step() -> None:
    """llguidance merges such a rule with the next one, and with it forgets the change."""
    machine = Automaton("BEGIN", terminals={"WORD": '"a"'})
    machine.add("BEGIN", (), "NEXT", less(WORDS, 8), (LINES, 1))
    machine.add("NEXT", "WORD", "END")
    machine.add("END", (), None, at_least(LINES, 1))
    assert accepts(machine.write([WORDS, LINES]), "a")


def test_a_machine_without_counters_is_a_plain_grammar() -> None:
    machine = Automaton("BEGIN", terminals={"WORD": '"a"'})
    machine.add("BEGIN", "WORD", "END")
    machine.add("END", (), None)
    assert machine.write([]) == 'start: begin\nbegin: WORD end\nend: ""\nWORD: "a"\n'


def test_only_the_terminals_that_are_used_are_written() -> None:
    machine = Automaton("BEGIN", terminals={"WORD": "PART /b/", "PART": "/a/", "OTHER": "/c/"})
    machine.add("BEGIN", "WORD", None)
    assert machine.write([]).splitlines()[2:] == ["PART: /a/", "WORD: PART /b/"]


def test_a_state_that_leads_nowhere_is_found() -> None:
    machine = two_lines()
    assert not find_dead_ends(machine, [WORDS, LINES])
    machine.places["AFTER"].pop()
    assert find_dead_ends(machine, [WORDS, LINES])
