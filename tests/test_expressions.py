import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.evaluators.text.patterns import compile_linear
from service.expressions import Edge, complement, edges, parse, to_re2


def matches(pattern: str, text: str) -> bool:
    return compile_linear(to_re2(parse(pattern))).search(text) is not None


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"^[\u4e00-\u9fff]+$", "汉字", "kana"),
        (r"^\u{1f600}$", "\U0001f600", "u"),
        (r"^\ud83d\ude00$", "\U0001f600", "\ufffd"),
        (r"^\x41x{2}$", "Axx", "A"),
        (r"^\cJ$", "\n", "J"),
        (r"^\0$", "\0", "0"),
        (r"^a\/b$", "a/b", r"a\/b"),
        (r"^\d\w\s$", "1a ", "٣a "),
        (r"^\D\W\S$", "a-x", "1-x"),
        (r"^\s$", "\ufeff", "\u200b"),
        (r"^[\s]$", "\u2028", "a"),
        (r"^[^\s\d]$", "a", "\u00a0"),
        (r"^[\S]$", "a", "\u3000"),
        (r"^\v\f\t$", "\v\f\t", "vft"),
        (r"^[\b]$", "\b", "b"),
        (r"\bcat\b", "a cat.", "concatenate"),
        (r"^.$", "\x85", "\u2029"),
        (r"^[]$|a", "a", "]"),
        (r"^[^]$", "\n", ""),
        (r"^[[]$", "[", "]"),
        (r"^[a-]$", "-", "b"),
        (r"^[\w-]+$", "a-b", "a b"),
        (r"^\p{L}\p{Lu}\P{L}$", "éA1", "1a1"),
        (r"^\p{Script=Han}\p{gc=Lu}\p{Uppercase_Letter}$", "字AB", "aAB"),
        (r"^\pL$", "é", "1"),
        (r"\Aa\z", "a", "ab"),
        (r"^(?<year>\d{4})-(?:0[1-9]|1[0-2])$", "2024-12", "2024-13"),
        (r"^a{2}b{1,}c{0,2}$", "aabbb", "aabccc"),
        (r"^a{,2}$", "a{,2}", "aa"),
        (r"^(a|b|)c??d+?$", "bdd", "xd"),
        ("^(?:ab|c)*$", "abcab", "a"),
    ],
)
def test_what_ecma_262_writes_is_matched_as_it_says(pattern: str, good: str, bad: str) -> None:
    assert matches(pattern, good)
    assert not matches(pattern, bad)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(?=a)", "(?= is look-ahead, which is not supported"),
        ("(?!a)", "(?! is look-ahead, which is not supported"),
        ("(?<=a)", "(?<= is look-behind, which is not supported"),
        ("(?<!a)", "(?<! is look-behind, which is not supported"),
        (r"(a)\1", r"\1 is a back-reference, which is not supported"),
        (r"(?<a>a)\k<a>", r"\k is a back-reference, which is not supported"),
        ("(?i)a", "(?i is not supported"),
        ("(?>a)", "(?> is not supported"),
        (r"\Z", r"\Z is not supported"),
        ("a++", "++ has a quantifier too many"),
        ("*a", "* repeats nothing"),
        ("^*", "* repeats nothing"),
        ("a{3,2}", "{3,2} is out of order"),
        ("[z-a]", "a range in [] is out of order"),
        (r"[\d-x]", "a range in [] is out of order"),
        (r"[\B]", r"\B is not supported"),
        ("[a", "missing ]"),
        ("(a", "missing )"),
        ("a)", "a ) without a ("),
        ("\\", "a \\ ends it"),
        (r"\u12", r"\u needs 4 hexadecimal digits"),
        (r"\u{110000}", r"\u{ needs the number of a character"),
        (r"\u{41", r"\u{ needs the number of a character"),
        (r"\c1", r"\c needs a letter"),
        (r"\p{a b}", r"\p{ is not supported with that name"),
        ("(" * 5000, "groups are nested too deeply"),
    ],
    ids=lambda value: value[:20],
)
def test_what_no_automaton_runs_is_refused_by_name(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        parse(pattern)


def test_edges_are_found_anywhere() -> None:
    assert list(edges((parse("^(?:a|b$)*"),))) == [Edge("^"), Edge("$")]


def test_the_complement_of_a_complement_is_the_same() -> None:
    ranges = ((0x30, 0x39), (0x61, 0x7A))
    assert complement(complement(ranges)) == ranges
    assert complement(()) == ((0, 0x10FFFF),)


@pytest.mark.filterwarnings("ignore:Possible .* at position:FutureWarning")  # of sets that Python may have some day
@given(pattern=st.text(st.sampled_from("ab|()*+?{}12,[]^$.-\\dws"), max_size=12), text=st.text("ab1- ", max_size=8))
def test_a_pattern_that_python_reads_too_matches_the_same(pattern: str, text: str) -> None:
    try:
        translated = to_re2(parse(pattern))
    except ValueError:
        return
    if any(sign in pattern for sign in ("[]", "[^]", "[[", "{,")):
        return  # they differ there, and ECMA-262 is right here
    try:
        ours = compile_linear(translated)
        theirs = re.compile(pattern, re.ASCII)
    except (ValueError, re.error):
        return
    assert (ours.search(text) is None) == (theirs.search(text) is None)
