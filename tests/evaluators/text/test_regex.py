import pytest

from service.evaluators.base import Check
from service.evaluators.text.regex import MAX_TEXT, Regex
from tests.support.checks import only, refusals


def test_regex_searches() -> None:
    assert only(Regex(pattern=r"\d+ apples").check("I ate 3 apples.")).score == 1.0
    assert only(Regex(pattern=r"^\d").check("none")) == Check(
        "pattern", 0.0, r"nothing matches ^\d", r"Write a text that matches the regular expression ^\d"
    )


def test_regex_can_forbid() -> None:
    forbidden = Regex(pattern=r"(?i)as an ai\b.*", must_match=False)
    assert only(forbidden.check("Fine.")).score == 1.0
    failed = only(forbidden.check("As an AI, I cannot é."))
    assert (failed.score, failed.message) == (0.0, r'"As an AI, I cannot é." matches (?i)as an ai\b.*')
    assert failed.instruction.startswith("Write nothing that matches")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a", "missing )"),
        (r"(a)\1", "invalid escape sequence"),
        ("a(?=b)", "invalid perl operator"),
        ("x{9999}", "invalid repetition size"),
    ],
)
def test_regex_refuses_what_re2_cannot_do(pattern: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    messages = refusals(type="regex", pattern=pattern)
    assert messages.keys() == {("regex",)}
    assert reason in messages["regex",]
    assert capfd.readouterr() == ("", "")  # RE2 logs to stderr unless told not to


def test_regex_bounds_the_pattern() -> None:
    assert "too large" in refusals(type="regex", pattern=r"\pL{90}")["regex",]
    assert refusals(type="regex", pattern="a" * 1001).keys() == {("regex", "pattern")}
    assert refusals(type="regex", pattern="").keys() == {("regex", "pattern")}


@pytest.mark.parametrize("must_match", [True, False])
def test_regex_does_not_search_a_long_text(must_match: bool) -> None:
    regex = Regex(pattern="a", must_match=must_match)
    assert only(regex.check("a" * MAX_TEXT)).score == float(must_match)
    assert only(regex.check("ab" * MAX_TEXT)) == Check(
        "pattern", 0.0, "200000 characters; at most 100000 are allowed", "Use at most 100000 characters."
    )
