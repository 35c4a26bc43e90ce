"""What verifiers repair by themselves in a text that fails, and what they leave alone."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.evaluators.base import Verifier
from service.evaluators.text.format import Format
from service.evaluators.text.keywords import Keywords, OneOf
from service.evaluators.text.length import Length
from service.evaluators.text.passages import EndsWith, ParagraphStarts, StartsWith
from service.evaluators.text.schema import FollowsSchema

REPAIRED: Sequence[tuple[Verifier, str, str]] = [
    (Format(kind="lowercase"), "Salt and NaCl.", "salt and nacl."),
    (Format(kind="lowercase"), "Соль и Μέλι.", "соль и μέλι."),
    (Format(kind="lowercase"), "İstanbul IŞIK ılık", "istanbul ışık ılık"),
    (Format(kind="lowercase"), "Call `F(X)`, see https://a.test/B", "call `F(X)`, see https://a.test/B"),
    (Format(kind="uppercase"), "straße ı i", "STRAßE I İ"),
    (Format(kind="uppercase"), "salt\n\n```\nx = 1\n```", "SALT\n\n```\nx = 1\n```"),
    (Format(kind="quoted"), " The sea. ", '"The sea."'),
    (Format(kind="quoted"), '"The sea', '"The sea"'),
    (Format(kind="quoted"), '"Salt," she said.', '""Salt," she said."'),
    (Format(kind="single_line"), "One.\n\nTwo.\r\nThree.", "One. Two. Three."),
    (Format(kind="single_line"), "海很大。\n也很咸。", "海很大。也很咸。"),
    (Format(kind="title"), "# The sea\n\nSalt.", "<<The sea>>\n\nSalt."),
    (Format(kind="title"), "**The sea**\nSalt.", "<<The sea>>\nSalt."),
    (Format(kind="two_responses"), "Salt.\n---\nFoam.", "Salt.\n\n******\n\nFoam."),
    (Format(kind="two_responses"), "Response 1: a\nResponse 2: b", "Response 1: a\n\n******\n\nResponse 2: b"),
    (Format(kind="json"), 'Here:\n```json\n{"a": [1, 2,],}\n```\nDone.', '{"a": [1, 2]}'),
    (Format(kind="json"), 'Sure: {"a": "b, ]"}', '{"a": "b, ]"}'),
    (FollowsSchema(schema={"type": "array"}), "Here:\n[1,\n]\n", "[1\n]"),
    (Format(kind="bullet_list", marker="*"), "Two:\n- salt\n• foam", "Two:\n* salt\n* foam"),
    (Format(kind="bullet_list"), "1. salt\n2) foam", "- salt\n- foam"),
    (Format(kind="bullet_list", min=0, max=0), "- salt\n- foam", "salt\nfoam"),
    (Format(kind="bullet_list", max=2), "It:\n- salt\n- foam\n- a\n  b\n\nAll.", "It:\n- salt\n- foam\n\nAll."),
    (Format(kind="numbered_list"), "- salt\n  - sea salt\n- foam", "1. salt\n  - sea salt\n2. foam"),
    (Format(kind="numbered_list", max=2), "1. salt and\n2. foam\n3. a", "1. salt and\n2. foam"),
    (Format(kind="sections", max=1), "Section 1\nLong to stay.\n\nSection 2\nA.", "Section 1\nLong to stay."),
    (Length(unit="words", max=5), "Salt and foam. Sand, too. More.", "Salt and foam. Sand, too."),
    (Length(unit="words", max=4), "海很大。也很咸。", "海很大。"),
    (Length(unit="sentences", max=2), "One is here. Two is here. Three.", "One is here. Two is here."),
    (Length(unit="characters", max=12), "Salt. Foam. Sand.", "Salt. Foam."),
    (Length(unit="paragraphs", max=2), "One.\n\nTwo.\n\nThree.", "One.\n\nTwo. Three."),
    (Length(unit="paragraphs", max=1), "Two:\n\n- salt\n- foam", "Two:\n- salt\n- foam"),
    (Length(unit="paragraphs", separator="***", min=2), "One.\n\nTwo.", "One.\n\n***\n\nTwo."),
    (Length(unit="paragraphs", separator="***", min=2), "One.\n\nIt.\n---\nTwo.", "One.\n\nIt.\n\n***\n\nTwo."),
    (Length(unit="lines", max=2), "a\nb\n\nc", "a\nb c"),
    (StartsWith(text="Dear Anna,"), "dear anna, the sea.", "Dear Anna, the sea."),
    (StartsWith(text="Answer:"), "Salt.", "Answer: Salt."),
    (StartsWith(text="答："), "海。", "答：海。"),
    (StartsWith(text="Answer:"), '"Salt."', '"Answer: Salt."'),
    (EndsWith(text="Is there more?"), "The sea.", "The sea. Is there more?"),
    (EndsWith(text="Is there more?"), "The sea is wide. Is there more? Yes!", "The sea is wide. Is there more?"),
    (OneOf(options=("yes", "no")), "Yes. It is salt.", "Yes."),
    (OneOf(options=("yes", "no")), "**No**\n\nBecause of the salt.", "**No**"),
]  # fmt: skip
LEFT_ALONE: Sequence[tuple[Verifier, str]] = [
    (Keywords(include=("salt",)), "The sea."),
    (Keywords(exclude=("sea",)), "The sea."),
    (ParagraphStarts(paragraph=1, text="Salt"), "The sea."),
    (Format(kind="no_commas"), "Salt, foam."),
    (Format(kind="postscript"), "The sea."),
    (Format(kind="json"), "The sea [1]."),
    (Format(kind="json"), "a {b} c"),
    (Format(kind="single_line"), "One.\n```\nx\ny\n```"),
    (Format(kind="bullet_list", max=1), "- a\n- a much longer item than the first one"),
    (Length(unit="words", max=2), "One two three four five six. Seven."),
    (Length(unit="words", min=4, max=5), "One two three. Four five six."),
    (Length(unit="sentences", max=1), "See:\n```\nA. B.\nC. D.\n```\nA second sentence that is far too long."),
    (Format(kind="title"), "The sea.\nSalt."),
    (StartsWith(text="A"), " \n"),
    (OneOf(options=("yes", "no")), "It may be yes."),
]  # fmt: skip


def score(rule: Verifier, text: str) -> float:
    return min(check.score for check in rule.check(text))


@pytest.mark.parametrize(("rule", "text", "repaired"), REPAIRED, ids=lambda value: repr(value)[:60])
def test_a_rule_repairs_its_texts(rule: Verifier, text: str, repaired: str) -> None:
    assert score(rule, text) < 1.0
    assert rule.repair(text) == repaired
    assert score(rule, re.sub("`[^`]*`|https.*|x = 1", "", repaired)) == 1.0


@pytest.mark.parametrize(("rule", "text"), LEFT_ALONE, ids=lambda value: repr(value)[:60])
def test_what_code_cannot_repair_stays(rule: Verifier, text: str) -> None:
    assert score(rule, text) < 1.0
    assert rule.repair(text) in (None, text)


SCRIPTS = ["Sea ", "Соль ", "海很咸", "しお", "ทะเล", "الملح ", "मीठा ", "바다 ", "λάδι ", "ı İ ", "ß "]
PIECES = [
    *SCRIPTS,
    *(". ", "。", "! ", ", ", "\n", "\n\n", "\r\n", '"', "“", "”", "- ", "* ", "• ", "1. ", "2) ", "# ", "**", "---\n"),
    *("******\n", "```\n", "```py\nX = 1. Y\n```\n", "`Do Not` ", "https://A.test/B ", '{"a": 1,}', "[1]"),
    *("Section 1\n", "第2节\n", "<<T>>", "\u200d", "  "),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=20).map("".join) | st.text(max_size=40)
RULES = [rule for rule, _, _ in REPAIRED]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: repr(rule)[:80])
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_a_repair_repairs_once_and_keeps_words_and_code(rule: Verifier, text: str) -> None:
    repaired = rule.repair(text)
    if repaired is None or score(rule, text) == 1.0:
        return
    again = repaired if score(rule, repaired) == 1.0 else rule.repair(repaired)
    assert again in (None, repaired)
    assert_kept(rule, text, repaired)


def assert_kept(rule: Verifier, text: str, repaired: str) -> None:
    """The letters of the text come in their order, perhaps without those at its end, and with what the rule adds."""
    kept = letters(repaired)
    if kept != letters(text):
        kept = kept.removeprefix(letters(rule.text)) if isinstance(rule, StartsWith) else kept
        kept = kept.removesuffix(letters(rule.text)) if isinstance(rule, EndsWith) else kept
    given = iter(letters(text))
    assert all(letter in given for letter in kept)
    for code in ("X = 1. Y", "`Do Not`"):
        assert repaired.count(code) <= text.count(code)
        assert repaired.swapcase().count(code.swapcase()) == repaired.count(code)


def letters(text: str) -> str:
    """The letters without case."""
    return "".join(filter(str.isalpha, text.translate({ord("ı"): "i", ord("İ"): "i"}).casefold()))
