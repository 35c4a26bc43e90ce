import json
import re

import jsonschema_rs
import pytest

from service.grammar.strings import FORMATS, Strings, expression
from tests.support.walks import accepts, compiled, walk


def grammar(strings: Strings) -> str:
    escaped = expression(strings).replace("/", "\\/")
    return f"start: /{escaped}/\n"


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_writes_values_of_the_format(name: str) -> None:
    validator = jsonschema_rs.validator_for({"format": name}, validate_formats=True)
    rules = compiled(grammar(Strings(patterns=(FORMATS[name],))))
    for seed in range(100):
        text = walk(rules, seed)
        assert text is not None
        assert validator.is_valid(json.loads(text)), text


@pytest.mark.parametrize(
    ("strings", "good", "bad"),
    [
        (Strings(), ["", "a", 'é"\\\n\t好\U0001f600'], []),
        (Strings(2, 3), ["ab", "\U0001f600\n\\"], ["", "a", "abcd"]),
        (Strings(patterns=("ab",)), ["ab", "xabx"], ["a b"]),
        (Strings(patterns=("^a|b$",)), ["a", "ax", "xb"], ["ba", "c"]),
        (Strings(patterns=("^(?:a|b)$",)), ["a", "b"], ["ab", ""]),
        (Strings(3, 3, ("^[A-Z]{3}$",)), ["ABC"], ["AB", "abc"]),
        (Strings(patterns=(r'^["\\]\n$',)), ['"\n', "\\\n"], ["a\n"]),
        (Strings(patterns=(r"^[\u4e00-\u9fff]+$",)), ["汉字"], ["a", ""]),
        (Strings(patterns=(r"^\p{Lu}[^\p{Lu}]*$",)), ["Éa1"], ["éa", "AB"]),
        (Strings(patterns=(r"^\P{L}$",)), ["1", "\ue000"], ["a"]),
        (Strings(patterns=("^.{2}(?:x|)$",)), ["ab", "abx"], ["abc"]),
        (Strings(patterns=("^a{2,}$",)), ["aa", "aaaa"], ["a"]),
        (Strings(patterns=("",)), ["", "anything"], []),
        (Strings(patterns=("^",)), ["", "anything"], []),
        (Strings(patterns=("^$",)), [""], ["a"]),
        (Strings(0, 0), [""], ["a"]),
    ],
    ids=repr,
)
def test_strings(strings: Strings, good: list[str], bad: list[str]) -> None:
    rules = compiled(grammar(strings))
    assert [text for text in good if not accepts(rules, _in_json(text))] == []
    assert [text for text in bad if accepts(rules, _in_json(text))] == []


@pytest.mark.parametrize(
    ("strings", "reason"),
    [
        (Strings(patterns=("a", "b")), "a string cannot have two patterns or formats"),
        (
            Strings(0, 30, ("^[a-z]+@",)),
            "maxLength cannot be used with a pattern or format that allows longer strings",
        ),
        (
            Strings(2, None, ("^a?$",)),
            "minLength cannot be used with a pattern or format that allows shorter strings",
        ),
        (
            Strings(patterns=(r"\bword\b",)),
            "a pattern may have ^ at its beginning and $ at its end, and \\b nowhere",
        ),
        (Strings(patterns=("a^b",)), "a pattern may have ^ at its beginning and $ at its end, and \\b nowhere"),
        (Strings(patterns=("(?=a)",)), "(?= is look-ahead, which is not supported"),
        (Strings(patterns=(r"^\x00$",)), "a pattern needs a character that cannot be written here"),
        (Strings(patterns=(r"^\p{Emoji}$",)), "a pattern's \\p{ is not supported with that name"),
    ],
    ids=repr,
)
def test_strings_that_are_not_understood(strings: Strings, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        expression(strings)


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
