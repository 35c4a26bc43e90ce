from collections.abc import Sequence

import pytest
from llguidance import LLMatcher

from service.constraints.algebra import (
    Case,
    Compiled,
    Constraint,
    Contradiction,
    Counter,
    Demand,
    Distortion,
    Excluded,
    Forbidden,
    Included,
    Json,
    Matches,
    Occurrences,
    OneOf,
    Parts,
    Postscript,
    Prefix,
    Quoted,
    Suffix,
    Title,
    Unstated,
)
from service.constraints.compile import compile_constraints
from tests.support.masked_walks import byte_tokenizer


def named(*demands: Demand) -> Sequence[Constraint]:
    return [Constraint(f"rule{index}", demand) for index, demand in enumerate(demands)]


def compiled(*demands: Demand, max_tokens: int | None = None) -> Compiled:
    """Everything is enforced."""
    made = compile_constraints(named(*demands), max_tokens=max_tokens)
    assert made.left_out_rules == []
    return made


def accepts(made: Compiled, text: str) -> bool:
    """Whether the grammar lets exactly this text end. What is given comes first."""
    assert made.grammar is not None
    assert text.startswith(made.given_prefix)
    matcher = LLMatcher(byte_tokenizer(), LLMatcher.grammar_from_lark(made.grammar), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    rest = text.removeprefix(made.given_prefix)
    return bool(matcher.consume_tokens(list(rest.encode())) and matcher.is_accepting())


def begins(made: Compiled, text: str) -> bool:
    """Whether the grammar takes a text as the beginning of one."""
    assert made.grammar is not None
    matcher = LLMatcher(byte_tokenizer(), LLMatcher.grammar_from_lark(made.grammar), log_level=0)
    rest = text.removeprefix(made.given_prefix).encode()
    return matcher.try_consume_tokens(list(rest)) == len(rest)


@pytest.mark.parametrize(
    ("demands", "passes", "fails"),
    [
        pytest.param([Counter("words", most=4)], "Snow fell all night.", "Snow fell all night long.", id="at most"),
        pytest.param([Counter("words", least=3, most=3)], "Snow fell here", "Snow fell", id="exactly"),
        pytest.param([Counter("sentences", least=2, most=2)], "Snow fell. We slept.", "Snow fell.", id="sentences"),
        pytest.param([Counter("lines", least=2, most=2)], "Snow fell,\nand we slept", "Snow fell", id="lines"),
        pytest.param([Counter("paragraphs", least=2, most=2)], "Snow.\n\nIce.", "Snow.\nIce.", id="paragraphs"),
        pytest.param([Counter("bullets", least=2, most=2)], "- snow\n- ice", "- snow", id="bullets"),
        pytest.param([Counter("bullets", 2, 2, "*")], "* snow\n* ice", "- snow\n- ice", id="marker"),
        pytest.param([Counter("numbered", least=2, most=2)], "1. Snow\n2. Ice", "1. Snow", id="numbered"),
        pytest.param([Included(("sugar",))], "Add some Sugar.", "Add some salt.", id="include"),
        pytest.param([Included(("New York",))], "It is New York.", "It is York.", id="phrase"),
        pytest.param([Included(("snow", "ice"), any=True)], "No ice.", "No rain.", id="any"),
        pytest.param([Occurrences("sock", 2, 2)], "A sock is a sock.", "A sock is red.", id="twice"),
        pytest.param([Excluded(("sand",))], "A thousand grains.", "A place of sand.", id="exclude"),
        pytest.param([Excluded(("fail",))], "I shall not.", "I shall not failed.", id="exclude all that begins alike"),
        pytest.param([Excluded(("art",))], "A party of artists.", "A work of art.", id="exclude a short word"),
        pytest.param([Excluded(("серый",))], "Белый дом", "Это Серый дом", id="Cyrillic"),
        pytest.param([Forbidden(",")], "red and blue", "red, blue", id="no commas"),
        pytest.param([Case("lower")], "rain. и снег", "Rain", id="lower"),
        pytest.param([Case("upper")], "РЕМОНТ!", "РЕМОНТ и", id="upper"),
        pytest.param([Quoted()], '"It rains."', "It rains.", id="quoted"),
        pytest.param([Prefix("Dear all"), Counter("words", most=9)], "Dear all, hello", "Dear allies", id="prefix"),
        pytest.param([Suffix("What am I?")], "I melt. What am I?", "I melt.", id="suffix"),
        pytest.param([Suffix("?")], "What melts?", "I melt.", id="mark"),
        pytest.param([Title()], "<<Snow>>\n\nIt fell.", "It fell.", id="title"),
        pytest.param([Counter("placeholders", least=1)], "Dear [name], hello.", "Dear name, hello.", id="placeholder"),
        pytest.param([Counter("highlights", least=1)], "Use *cold* water.", "Use cold water.", id="highlight"),
        pytest.param([Matches(r"(?m)^In short\b")], "Snow.\nIn short, ice.", "Snow. In short, ice.", id="pattern"),
        pytest.param([Matches(r"\d", anywhere=False)], "Two feet.", "2 feet.", id="no match"),
        pytest.param(
            [Matches(r"(?s)^Q:.*\n+\s*A:"), Counter("lines", 2, 2)],
            "Q: Ice?\nA: No.",
            "Q: Ice?\n\nA: No.\nYes.",
            id="lines too",
        ),
        pytest.param([Matches("[?]"), Included(("ice",))], "Is it ice?", "Is it nice?", id="a pattern and a keyword"),
        pytest.param([Matches(";"), Suffix("so be it")], "Snow; so be it", "Snow; or be it", id="a pattern and an end"),
        pytest.param(
            [Matches("[.]$"), Prefix("Dear all")], "Dear all, hello.", "Dear all, hello", id="and a beginning"
        ),
        pytest.param([Matches("[.]"), Quoted()], '"It is snow."', "It is snow.", id="a pattern in quotation marks"),
        pytest.param(
            [Counter("bullets", 2, 2), Counter("lines", 3, 3)],
            "Two:\n- snow\n- ice",
            "- snow\n- ice",
            id="bullets and lines",
        ),
        pytest.param([Counter("capitals", 1, 1)], "It is COLD here.", "It is VERY COLD here.", id="capitals"),
        pytest.param(
            [Counter("sections", 2, 2, "Part", frozenset(("Part",)))],
            "Part 1\nPartly snow.\n\nPart 2\nIce came.",
            "Part 1\nPart II\n\nPart 2\nIce came.",
            id="sections",
        ),
        pytest.param(
            [Counter("words", 30, 60), Forbidden(".!?")], "salt " * 39 + "foam", "salt " * 39 + "foam.", id="no stops"
        ),
        pytest.param([Counter("words", most=9), Forbidden("eE")], "Salt and ash.", "Salt and ash", id="no e"),
    ],
)
def test_a_grammar_holds_what_is_demanded(demands: Sequence[Demand], passes: str, fails: str) -> None:
    made = compiled(*demands)
    assert accepts(made, passes)
    assert not fails.startswith(made.given_prefix) or not accepts(made, fails)


NUMBERED = Counter("numbered", 2, 2)
SECTIONS = Counter("sections", 2, 2, "Part", frozenset(("Part",)))


@pytest.mark.parametrize(
    ("demands", "left"),
    [
        pytest.param([Counter("capitals", 2, 3), Case("lower")], 0, id="capitals in small letters"),
        pytest.param([Case("lower"), Counter("capitals", 2, 3)], 1, id="the same the other way round"),
        pytest.param([Counter("sentences", 2, 4), Case("lower"), Forbidden("aeiou")], 0, id="words without vowels"),
        pytest.param([Title(), Forbidden("<")], 0, id="title"),
        pytest.param([Counter("highlights", least=1), Forbidden("*")], 0, id="highlights"),
        pytest.param([Counter("placeholders", least=1), Forbidden("]")], 0, id="placeholders"),
        pytest.param([Quoted(), Forbidden('"')], 0, id="quoted"),
        pytest.param([Quoted(), Forbidden('"'), Counter("words", most=9)], 0, id="quoted words"),
        pytest.param([Postscript("PS"), Forbidden(".!?")], 0, id="postscript without stops"),
        pytest.param([Parts(2, "******"), Forbidden(".!?")], 0, id="parts without stops"),
        pytest.param([NUMBERED, Prefix("1. Salt")], 0, id="a beginning that is an item"),
        pytest.param([SECTIONS, Prefix("Part")], 0, id="a beginning that is a heading"),
        pytest.param([SECTIONS, Suffix("Part II")], 1, id="an end that is a heading"),
        pytest.param([SECTIONS, Postscript("Part")], 0, id="a postscript that is a heading"),
    ],
)
def test_a_rule_that_only_breaks_another_is_left_out(demands: Sequence[Demand], left: int) -> None:
    made = compile_constraints(named(*demands))
    assert [rule for rule, _ in made.left_out_rules] == [f"rule{left}"]


def test_many_rules_fit_into_one_grammar() -> None:
    made = compiled(
        Counter("words", most=40), Counter("sentences", 2, 2), Case("lower"), Forbidden(","), Excluded(("sand",)),
        Included(("night",)), max_tokens=90,
    )  # fmt: skip
    assert accepts(made, "a desert can reach fifty degrees. the night is cold.")


def test_a_schema_comes_alone() -> None:
    schema = {"type": "object"}
    made = compile_constraints(named(Json(schema), Counter("words", most=9)))
    assert made.schema == schema
    assert made.grammar is None
    assert made.enforced_rules == ("rule0",)
    assert made.left_out_rules == [("rule1", "the whole text is under rule0")]


def test_a_closed_set_of_texts_comes_alone() -> None:
    made = compile_constraints(named(Counter("words", most=9), OneOf(("yes", "no"))))
    assert made.choices == ("yes", "no")
    assert made.enforced_rules == ("rule1",)


def test_what_cannot_be_stated_is_left_out_with_its_reason() -> None:
    made = compile_constraints(named(Unstated("no grammar knows a language")))
    assert not made.constrains
    assert made.left_out_rules == [("rule0", "no grammar knows a language")]


def test_a_draft_can_be_spared_what_distorts() -> None:
    rules = named(Forbidden(","), Counter("words", most=9), Included(("sugar",)))
    slight = compile_constraints(rules, most=Distortion.SLIGHT)
    assert slight.enforced_rules == ("rule0",)
    assert [rule for rule, _ in compile_constraints(rules, most=Distortion.MODERATE).left_out_rules] == ["rule2"]


def test_rules_about_words_are_left_out_where_words_have_no_spaces() -> None:
    rules = named(Forbidden(","), Counter("words", most=9))
    for made in (compile_constraints(rules, spaced=False), compile_constraints(rules, prose=False, max_tokens=60)):
        assert made.enforced_rules == ("rule0",)
        assert accepts(made, "def f(x):\n    return [雪 for _ in x]")


def test_the_last_word_that_a_long_text_may_have_comes_with_a_stop() -> None:
    """Nothing could follow another one, and a text of so many words does not end without a stop."""
    for prefix in ((), (Prefix("The lake"),)):
        made = compiled(Counter("words", 20, 40), *prefix)
        text = " ".join(["The lake", *["was"] * 37])
        assert accepts(made, f"{text} cold.")
        for last in (";", ",'"):
            assert not begins(made, f"{text} cold{last}")


def test_no_word_goes_on_for_ever() -> None:
    for more in ((), (Excluded(("sand",)),)):
        made = compiled(Counter("words", most=9), *more)
        assert accepts(made, f"A {'w' * 24} here.")
        assert not accepts(made, f"A {'w' * 26} here.")


def test_words_alone_are_excluded_from_any_text() -> None:
    made = compiled(Excluded(("sand", "art")))
    assert accepts(made, "## Party\n\n- **one**\n    - two: `x = 1`\n\n| a | b |")
    for text in ("One.\n\nSandy", "a_sand", "ART", "the art: new", "no-art"):
        assert not accepts(made, text)


def test_a_certain_beginning_is_given_and_the_grammar_goes_on_after_it() -> None:
    made = compiled(Prefix("Once upon a time"), Counter("words", most=6))
    assert made.given_prefix == "Once upon a time"
    assert accepts(made, "Once upon a time snow fell")
    assert not accepts(made, "Once upon a time the snow fell")


def test_an_engine_that_cannot_be_given_a_beginning_has_it_in_the_grammar() -> None:
    both: Sequence[Sequence[Demand]] = (
        (Prefix('Say "a\\b":'), Forbidden(";")),
        (Prefix("Once"), Counter("words", most=6)),
    )
    for demands in both:
        made = compile_constraints(named(*demands), gives_prefix=False)
        assert made.given_prefix == ""
        assert accepts(made, 'Say "a\\b": yes' if ";" in str(demands) else "Once snow fell")


def test_a_quotation_mark_comes_before_a_given_beginning() -> None:
    made = compiled(Prefix("Rain"), Quoted())
    assert made.given_prefix == '"Rain'
    assert accepts(made, '"Rain falls."')


def test_a_text_ends_with_a_sentence_before_its_tokens_do() -> None:
    made = compiled(max_tokens=18)
    assert made.grammar is not None
    assert made.enforced == ()
    assert accepts(made, "one two three four five six seven eight nine ten.")
    assert not accepts(made, "one two three four five six seven eight nine ten")
    assert not accepts(made, "one two three four five six seven eight nine ten eleven.")


def test_no_sentence_begins_where_the_text_lands() -> None:
    made = compiled(max_tokens=36)
    assert accepts(made, "a b c d e f g h. i j k.")
    assert not accepts(made, "a b c d e f g h i j k l m n o p q. r s.")


def test_more_words_than_the_tokens_hold_are_not_demanded() -> None:
    made = compile_constraints(named(Counter("words", least=100)), max_tokens=60)
    assert made.left_out_rules == [("rule0", "max_tokens leaves no room for it")]


def test_what_does_not_fit_is_left_out_by_name() -> None:
    many = named(Excluded(tuple(f"word{number}" for number in range(501))), Forbidden(","))
    made = compile_constraints(many)
    assert made.left_out_rules == [("rule0", "there are too many words to exclude")]
    assert made.enforced_rules == ("rule1",)


def test_four_hundred_words_are_excluded_at_once() -> None:
    made = compiled(Excluded(tuple(f"word{number}" for number in range(400))))
    assert accepts(made, "A ward399 here")
    assert not accepts(made, "A word399 here")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Counter("words", least=50), Counter("words", most=40)),
        (Counter("bullets", least=3), Counter("lines", 1, 1)),
        (Counter("paragraphs", least=3), Counter("lines", most=2)),
        (Included(("sugar",)), Excluded(("Sugar",))),
        (Included(("New York",)), Excluded(("York",))),
        (Included(("red, blue",)), Forbidden(",")),
        (Prefix("Hello, all"), Forbidden(",")),
        (Prefix("the wax candle"), Excluded(("wax",))),
        (Prefix("Dear"), Prefix("Hello")),
        (Suffix("the end"), Suffix("the start")),
        (Included(("iPhone",), cased=True), Case("lower")),
        (Occurrences("sock", 2, 2), Excluded(("sock",))),
    ],
)
def test_rules_that_no_text_can_follow_together_are_refused(first: Demand, second: Demand) -> None:
    for rules in (named(first, second), named(second, first)):
        with pytest.raises(Contradiction) as caught:
            compile_constraints(rules)
        assert {caught.value.first, caught.value.second} == set(rules)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Prefix("Dear"), Prefix("Dear Ida")),
        (Prefix("Dear"), Excluded(("dear",))),  # "Dearest"
        (Prefix('"Hi'), Prefix("Hi")),
        (Included(("party",)), Excluded(("art",))),
        (Included(("sugar",)), Case("lower")),
        (Counter("words", most=40), Counter("words", least=40)),
        (Counter("sentences", least=5), Counter("lines", 1, 1)),
    ],
)
def test_rules_that_some_text_can_follow_together_are_not_refused(first: Demand, second: Demand) -> None:
    compile_constraints(named(first, second))


def test_hundreds_of_excluded_words_leave_room_for_rules_about_sentences() -> None:
    words = tuple(f"{first}{second}{third}" for first in "bdfgklmnpr" for second in "aeiou" for third in "bdgklmnprt")

    made = compiled(Excluded(words), Counter("sentences", 2, 4), Counter("numbered", 2, 3), max_tokens=120)

    assert accepts(made, "1. Waves come in again.\n2. Gulls shout.")
    assert not accepts(made, "1. Waves ram the shore.\n2. Gulls shout.")
