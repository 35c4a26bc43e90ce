"""The Prefer header, as RFC 7240 defines it."""

import pytest

from service.api.preferences import parse_preferences

URL = "https://hooks.example.com/a,b;c?d=e"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("respond-async", {"respond-async": {}}),
        ("Respond-Async , WAIT = 10", {"respond-async": {}, "wait": {}}),
        (f'respond-async, callback; url="{URL}"', {"respond-async": {}, "callback": {"url": URL}}),
        (f'callback ; URL = "{URL}" , respond-async', {"callback": {"url": URL}, "respond-async": {}}),
        ("callback;url=https://hooks.example.com/a?b=c", {"callback": {"url": "https://hooks.example.com/a?b=c"}}),
        (r'callback; url="a\"b\\c"', {"callback": {"url": 'a"b\\c'}}),
        ("callback; url", {"callback": {"url": ""}}),
        ("callback; url=", {"callback": {"url": ""}}),
        (",, respond-async,,", {"respond-async": {}}),
        ('callback; url="1", callback; url="2"', {"callback": {"url": "1"}}),
        ('callback; url="1"; url="2"', {"callback": {"url": "1"}}),
        ('respond-async, callback; url="not closed, wait', {"respond-async": {}, "callback": {}}),
    ],
)
def test_preferences_and_their_parameters(text: str, found: object) -> None:
    assert parse_preferences(text) == found


def test_a_header_that_is_hard_to_read_takes_no_time() -> None:
    assert parse_preferences("a=" + " \t" * 30_000 + '"') == {}
    assert parse_preferences('a="' + "\\" * 60_000) == {}
