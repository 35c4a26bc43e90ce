"""What must not be stored is blanked, in every script, and JSON stays JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.store.errors import StoreMisconfigured
from service.traces.redaction import DEFAULT, OFF, load_redaction, redact, redact_value

EMAILS = [
    "jo@example.com",
    "a.b+tag@mail.example.co.uk",
    "иван@почта.рф",
    "用户@例子.广告",
    "सम्पर्क@डाटामेल.भारत",
    "jo＠example.com",
]
PHONES = [
    "+49 30 1234567",
    "+1 (555) 123-4567",
    "0049 30 123456",
    "(030) 1234567",
    "0171 123 45 67",
    "555-123-4567",
    "1-800-555-0199",
    "13812345678",
    "138 1234 5678",
    "٠١٢٣٤٥٦٧٨٩٠",
    "०९८७६५४३२१०",
    "０９０－１２３４－５６７８",
    "＋81 90-1234-5678",
]
KEYS = [
    "sk-proj-abcdefghijklmnop1234",
    "ghp_abcdefghijklmnopqrst1234",
    "xoxb-1234567890-abcdefghij",
    "AKIA" + "IOSFODNN7EXAMPLE",
    "hf_abcdefghijklmnopqrstuv",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl",
    "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY",
]
PLAIN = [
    "on 2026-11-29 at 08:30",
    "01.02.2026",
    "3.14159265358 or 0.123456789",
    "1,234,567 or 10 000 000 people",
    "ISBN 978-3-16-148410-0",
    "192.168.100.101",
    "ref-019ac8d1f3a05b0e7c6d1f2a3b4c5d6e",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "the token: is needed; secret sauce: salt",
    "RFC 9457, section 3.1.1",
    "你好，世界。",
    "a@b and @handle",
]


@pytest.mark.parametrize(("found", "shown"), [*((e, "[email]") for e in EMAILS), *((p, "[phone]") for p in PHONES)])
@pytest.mark.parametrize("around", ["{}", "Call {}!", "电话：{}。", "打{}吧", "({})", "tel:{}, or later"])
def test_addresses_and_numbers_are_blanked_in_every_script(found: str, shown: str, around: str) -> None:
    redacted = redact(around.format(found))

    assert shown in redacted
    assert found not in redacted


@pytest.mark.parametrize("key", KEYS)
def test_keys_and_tokens_are_blanked(key: str) -> None:
    assert redact(f"Use {key} for it.") == "Use [key] for it."


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Authorization: Bearer abc.def.ghi123", "Authorization: Bearer [key]"),
        ("password=hunter22 rest", "password=[key] rest"),
        ('api_key: "abcdef123456"', 'api_key: "[key]"'),
        ("https://jo:hunter22@host/path", "https://[key]@host/path"),
        ("4111 1111 1111 1111", "[card]"),
        ("请联系zhang@example.com谢谢", "请联系[email]谢谢"),
    ],
)
def test_what_is_around_a_secret_stays(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@pytest.mark.parametrize("text", PLAIN)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"phone": 13812345678, "size": 1.5}', {"phone": "[phone]", "size": 1.5}),
        ('{"mail": "jo\\u0040example.com"}', {"mail": "[email]"}),
        ('["password=hunter22\\n", true, null]', ["password=[key]\n", True, None]),
        ('{"jo@example.com": 1, "bo@example.com": 2}', {"[email]": 1, "[email] #2": 2}),
    ],
)
def test_a_text_that_is_json_stays_json(text: str, value: Any) -> None:
    assert json.loads(redact(text)) == value


def test_json_without_secrets_stays_as_it_was_written() -> None:
    text = '{ "a" : [1.50, "x"],\n  "a": 2 }'
    assert redact(text) == text


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from([*EMAILS, *PHONES, *KEYS]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(EMAILS), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_no_value_of_json_is_corrupted(value: Any) -> None:
    redacted = redact_value(value, redact)
    text = json.dumps(redacted, ensure_ascii=False)

    assert json.loads(text) == redacted
    assert not any(email in text for email in EMAILS)
    assert isinstance(redact(json.dumps(value)), str)


@given(st.text(alphabet="a@.-+(0 1k=:/"))
def test_what_was_redacted_is_not_redacted_again(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize(
    "piece", ["a", "a@", "a.b@c.", "1 ", "(1", "token=", "sk-", "a-", "://a:", "-----BEGIN " + "PRIVATE KEY-----"]
)
def test_no_text_takes_more_than_its_length(piece: str) -> None:
    redact(piece * (200_000 // len(piece)))  # with any pattern that backtracks, this test would run into its timeout


def test_names_that_the_service_gives_stay(tmp_path: Path) -> None:
    value = {"task": "a@example.com", "messages": [{"role": "b@example.com", "content": "c@example.com"}]}
    skip = (("task",), ("messages", "*", "role"))

    assert redact_value(value, redact, skip=skip) == {
        "task": "a@example.com",
        "messages": [{"role": "b@example.com", "content": "[email]"}],
    }


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, *names: str) -> None:
    """Install a package with hooks, each the function ``hook``."""
    metadata = folder / "hooks-1.0.dist-info"
    metadata.mkdir()
    (folder / "redaction_hooks.py").write_text(source)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: hooks\nVersion: 1.0\n")
    points = "".join(f"{name} = redaction_hooks:hook\n" for name in names)
    (metadata / "entry_points.txt").write_text(f"[redraft.redaction]\n{points}")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(__import__("sys").modules, "redaction_hooks", raising=False)


def test_the_operator_names_a_hook_or_turns_redaction_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "def hook(text):\n    return text.replace('Ann', '[name]')\n", "names")

    assert load_redaction("names")("Ann: ann@example.com") == "[name]: ann@example.com"
    assert load_redaction(OFF)("ann@example.com") == "ann@example.com"
    assert load_redaction(DEFAULT) is redact


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("hook = 3\n", "is not a function"),
        ("import nowhere_to_be_found\n", "cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_a_hook_that_cannot_be_used_stops_the_start(
    source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, source, "names")
    with pytest.raises(StoreMisconfigured, match=reason):
        load_redaction("names")


def test_a_hook_that_is_not_installed_stops_the_start() -> None:
    with pytest.raises(
        StoreMisconfigured, match="no installed package has a redaction 'names'; known are default, off"
    ):
        load_redaction("names")


def test_a_hook_must_return_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "def hook(text):\n    return None\n", "names")
    with pytest.raises(TypeError, match="did not return a text"):
        load_redaction("names")("Ann")
