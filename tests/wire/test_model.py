import json

import pytest

from service.wire.model import encode, escape_line_ends


@pytest.mark.parametrize("end", ["\u0085", "\u2028", "\u2029"])
def test_a_line_end_is_escaped_in_texts_and_in_names(end: str) -> None:
    document = encode({f"a{end}": [f"{end}b", {"c": end * 2}]})
    assert document.splitlines() == [document]
    assert json.loads(document) == {f"a{end}": [f"{end}b", {"c": end * 2}]}


def test_an_escape_that_a_text_spells_out_stays_that_text() -> None:
    spelled = json.dumps({"text": "\\u2028 \u2028"}, ensure_ascii=False)
    assert json.loads(escape_line_ends(spelled)) == {"text": "\\u2028 \u2028"}


def test_other_characters_stay_as_they_are() -> None:
    assert encode({"text": "é 水 \U0001f600 \x7f"}) == '{"text":"é 水 \U0001f600 \x7f"}'


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode({"score": number})
