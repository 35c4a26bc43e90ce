import hashlib
import hmac

import pytest

from service.api.auth import Keys
from service.errors import Unauthorized


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("latin-1")).digest()


KEYS = Keys((("ann", digest("one")), ("bob", digest("two")), ("bob", digest("zwölf"))))


@pytest.mark.parametrize(
    ("header", "caller"),
    [
        ("Bearer one", "ann"),
        ("bearer two", "bob"),
        ("BEARER  one ", "ann"),
        ("Bearer \t one \t", "ann"),
        ("Bearer zwölf", "bob"),
    ],
)
def test_a_known_key_gives_its_name(header: str, caller: str) -> None:
    assert KEYS.caller(header) == caller


@pytest.mark.parametrize("secret", ["voilà", "keyÅ", "ключ", "鍵", "é\xa0", "é\x85", "\u3000x", "a b"])
def test_a_key_may_have_any_characters_in_utf_8(secret: str) -> None:
    keys = Keys((("ann", hashlib.sha256(secret.encode()).digest()),))
    assert keys.caller(f"Bearer {secret}".encode().decode("latin-1")) == "ann"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Bearer three", "Basic one", "one", "Bearer 三"])
def test_anything_else_is_refused_without_repeating_it(header: str | None) -> None:
    with pytest.raises(Unauthorized) as raised:
        KEYS.caller(header)
    assert "three" not in raised.value.detail


def test_without_keys_everyone_is_anonymous() -> None:
    assert Keys(()).caller(None) == "anonymous"
    assert Keys(()).caller("Bearer whatever") == "anonymous"


def test_every_key_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(a) or compare(a, b))  # type: ignore[func-returns-value]
    KEYS.caller("Bearer one")
    assert compared == [expected for _, expected in KEYS.digests]


def test_digests_are_not_shown() -> None:
    assert repr(KEYS) == "Keys()"
