import pytest

from service.evaluators.base import Check
from service.evaluators.text.passages import EndsWith, ParagraphStarts, StartsWith
from tests.support.checks import in_english, only, refusals


def test_starts_and_ends_ignore_only_white_space_around() -> None:
    text = "\r\n Dear Ann, all is well. \n"
    assert only(StartsWith(text="Dear Ann").check(text)).score == 1.0
    assert only(EndsWith(text=" is well.\n").check(text)).score == 1.0
    assert in_english(StartsWith(text="dear").check(text)) == [
        Check("text", 0.0, 'it starts with "Dear Ann, all is well."', 'Start with "dear".')
    ]
    assert in_english(EndsWith(text="Well.").check(text)) == [
        Check("text", 0.0, 'it ends with "Dear Ann, all is well."', 'End with "Well.".')
    ]


def test_starts_and_ends_take_characters_as_typed() -> None:
    assert only(StartsWith(text="It's").check("It\u2019s on.")).score == 1.0
    assert only(EndsWith(text="the cafe\u0301").check("To the café")).score == 1.0
    assert only(StartsWith(text="Dear").check("Dearest Ann")).score == 1.0
    assert only(StartsWith(text="Dear Ann").check("Dear  Ann")).score == 0.0


@pytest.mark.parametrize("kind", [StartsWith, EndsWith])
def test_starts_and_ends_quote_only_the_place(kind: type[StartsWith] | type[EndsWith]) -> None:
    text = "first " + "x" * 10_000 + " last"
    message = only(kind(text="?").check(text)).message
    assert ("first" in message) == (kind is StartsWith)
    assert ("last" in message) == (kind is EndsWith)
    assert len(message) < 100
    assert only(kind(text="?").check(" ")).message == "it is empty"


@pytest.mark.parametrize("mark", ['"{}"', "“{}”", "„{}“", "«{}»", "「{}」", "{}"])
def test_starts_and_ends_look_inside_quotation_marks(mark: str) -> None:
    text = mark.format("Dear Ann, goodbye.")
    for wanted in ("Dear Ann", mark[0] + "Dear Ann"):
        assert only(StartsWith(text=wanted).check(text)).score == float(wanted[0] in "D" + text[0])
    assert only(EndsWith(text="goodbye.").check(text)).score == 1.0


def test_starts_and_ends_fold_case_and_white_space_on_demand() -> None:
    text = "WRITE  a\nCafe\u0301 poem.\n\nA poem: straße"
    assert only(StartsWith(text="write a café\tpoem.", case_sensitive=False).check(text)).score == 1.0
    assert only(StartsWith(text="write a poem.", case_sensitive=False).check(text)).score == 0.0
    assert only(EndsWith(text="a POEM: STRASSE", case_sensitive=False).check(text)).score == 1.0


@pytest.mark.parametrize("kind", [StartsWith, EndsWith])
def test_a_long_passage_is_named_by_its_ends(kind: type[StartsWith] | type[EndsWith]) -> None:
    passage = "Once " + "x" * 19_990 + " end."
    (check,) = kind(text=passage).check(passage[1:-1])
    assert check.score == 0.0
    assert "Once xxx" in check.instruction
    assert 'xxx end.", word for word.' in check.instruction
    assert len(check.instruction) < 200
    assert only(kind(text=passage).check(passage)).score == 1.0
    assert refusals(type=kind.type, text="x" * 20_001).keys() == {(kind.type, "text")}


@pytest.mark.parametrize("kind", ["starts_with", "ends_with"])
def test_starts_and_ends_need_a_text(kind: str) -> None:
    assert refusals(type=kind, text=" ") == {(kind,): "Value error, text is blank"}
    assert refusals(type=kind, text="").keys() == {(kind, "text")}
    assert refusals(type=kind).keys() == {(kind, "text")}


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("One.\n\nHowever, two.", 1.0),
        ("One.\r\n \r\n  **however** two.", 1.0),
        ("One.\n\n“HOWEVER” two.", 1.0),
        ("One.\n\nHowevers two.", 0.0),
        ("However.\n\nTwo.", 0.0),
        ("One.\nHowever.", 0.0),
        ("", 0.0),
    ],
)
def test_the_word_that_starts_a_paragraph(text: str, score: float) -> None:
    assert only(ParagraphStarts(paragraph=2, text="However").check(text)).score == score


def test_a_paragraph_s_start_is_said() -> None:
    second = ParagraphStarts(paragraph=2, text=" In short, ")
    assert in_english(second.check("One.")) == [
        Check("text", 0.0, "there is no paragraph 2", 'Start paragraph 2 with "In short,".')
    ]
    assert only(second.check("a\n\nIn short: b\n\nc")).message == 'paragraph 2 starts with "In short: b"'
    assert only(second.check("a\n\nin  short, b")).score == 1.0


def test_paragraph_starts_refuses_what_makes_no_sense() -> None:
    assert refusals(type="paragraph_starts", paragraph=1, text="**").keys() == {("paragraph_starts",)}
    assert refusals(type="paragraph_starts", paragraph=0).keys() == {
        ("paragraph_starts", "paragraph"),
        ("paragraph_starts", "text"),
    }
