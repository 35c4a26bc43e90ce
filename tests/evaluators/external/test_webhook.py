import asyncio
import base64
import hmac
import json
import re
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from service.engines.conversation import Conversation, Turn
from service.engines.scripted import Script, ScriptedEngine
from service.evaluators.base import Evaluation, RefusedField, Submission
from service.evaluators.external.webhook import Webhook
from service.evaluators.external.webhook_client import (
    WebhookBusy,
    WebhookFailed,
    Webhooks,
    WebhookSettings,
)
from service.evaluators.toolbox import Toolbox
from service.signatures import WebhookMisconfigured
from tests.evaluators.model.test_judge import Plain
from tests.support.listener import Answer, Listener, Received, answered, listening, raw
from tests.support.listener import connects as connects  # a fixture

SECRET = "whsec_" + base64.b64encode(b"a secret of the operator's").decode()
OTHER = "whsec_" + base64.b64encode(b"another secret of the operator's").decode()
PASSED = answered({"score": 1})
REQUEST = Conversation(Turn("user", "Name a colour."), Conversation(Turn("system", "Be brief.")))


def submission(text: str = "Red.") -> Submission:
    return Submission(
        text=text,
        request=REQUEST,
        shown=REQUEST,
        judge_prompt=Plain(),
        engine=ScriptedEngine(Script(reply=lambda _: "")),
    )


def stated(**fields: Any) -> Webhook:
    """A webhook as it comes in a request."""
    return TypeAdapter(Webhook).validate_json(json.dumps({"type": "webhook", **fields}))


async def evaluated(
    url: str, *, text: str = "Red.", fields: dict[str, Any] | None = None, **options: Any
) -> Evaluation:
    """One evaluation by the webhook at ``url``, which the operator has configured so."""
    webhooks = Webhooks({"style": WebhookSettings(url=url, **options)})
    try:
        evaluator = stated(name="style", **(fields or {})).resolve(Toolbox(webhooks))
        return await evaluator.evaluate(submission(text))
    finally:
        await webhooks.close()


async def test_it_is_sent_the_candidate_and_the_request() -> None:
    async with listening(PASSED) as listener:
        await evaluated(listener.url, text='"Röd" \ud800')

    [received] = listener.requests
    assert received.head.startswith("POST /score?token=hush HTTP/1.1\r\n")
    assert received.headers["host"] == f"127.0.0.1:{listener.port}"
    assert received.headers["user-agent"] == "redraft"
    assert received.headers["content-type"] == "application/json"
    assert re.fullmatch("[0-9a-f]{32}", received.headers["webhook-id"])
    assert abs(int(received.headers["webhook-timestamp"]) - time.time()) < 60
    assert "webhook-signature" not in received.headers
    assert received.json == {
        "evaluator": "style",
        "candidate": '"Röd" \ud800',
        "request": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a colour."}],
    }


@pytest.fixture(scope="module")
def is_authentic() -> Callable[[str, Mapping[str, str], bytes], bool]:
    """The receiver's check as the guide shows it."""
    document = Path(__file__).parents[3] / "docs/guide/webhooks.md"
    snippet, _ = re.findall(r"^```python\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)
    scope: dict[str, Any] = {}
    exec(snippet, scope)
    return scope["is_authentic"]  # type: ignore[no-any-return]


async def sent(tmp_path: Path, *secrets: str) -> Received:
    """A request that is signed with secrets."""
    file = tmp_path / "secrets"
    file.write_text("".join(f"{secret}\n" for secret in secrets))
    async with listening(PASSED) as listener:
        await evaluated(listener.url, secret_file=file)

    [received] = listener.requests
    return received


async def test_the_guide_s_check_accepts_a_request(tmp_path: Path, is_authentic: Any) -> None:
    received = await sent(tmp_path, SECRET)
    assert is_authentic(SECRET, received.headers, received.body)


@pytest.mark.parametrize(
    ("header", "change"),
    [
        ("webhook-id", lambda value: value + "0"),
        ("webhook-timestamp", lambda value: str(int(value) - 1)),
        ("webhook-timestamp", lambda value: str(int(value) - 301)),
        ("webhook-signature", lambda value: "v1," + base64.b64encode(bytes(32)).decode()),
        ("webhook-signature", lambda value: value.replace("v1,", "v2,")),
        ("webhook-signature", lambda value: "v1"),
        ("webhook-signature", lambda value: value[:-1] + "é"),
    ],
)
async def test_the_guide_s_check_refuses_a_changed_header(
    tmp_path: Path, is_authentic: Any, header: str, change: Callable[[str], str]
) -> None:
    received = await sent(tmp_path, SECRET)
    assert not is_authentic(SECRET, {**received.headers, header: change(received.headers[header])}, received.body)


async def test_the_guide_s_check_refuses_another_body_and_another_secret(tmp_path: Path, is_authentic: Any) -> None:
    received = await sent(tmp_path, SECRET)
    assert not is_authentic(SECRET, received.headers, received.body + b" ")
    assert not is_authentic(SECRET, received.headers, b"\xff")
    assert not is_authentic(OTHER, received.headers, received.body)


async def test_a_receiver_with_either_of_two_secrets_accepts_a_request(tmp_path: Path, is_authentic: Any) -> None:
    received = await sent(tmp_path, OTHER, SECRET)

    assert re.fullmatch(r"v1,[A-Za-z0-9+/]{43}= v1,[A-Za-z0-9+/]{43}=", received.headers["webhook-signature"])
    assert is_authentic(OTHER, received.headers, received.body)
    assert is_authentic(SECRET, received.headers, received.body)


async def test_a_signature_is_that_of_the_specification(tmp_path: Path) -> None:
    """Computed by hand, without the library."""
    received = await sent(tmp_path, SECRET)

    signed = f"{received.headers['webhook-id']}.{received.headers['webhook-timestamp']}.".encode() + received.body
    expected = hmac.digest(b"a secret of the operator's", signed, "sha256")
    assert received.headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()


@pytest.mark.parametrize(
    ("answer", "score", "passed"),
    [
        ({"score": 1}, 1.0, True),
        ({"score": 1.0, "passed": True}, 1.0, True),
        ({"score": 0.25}, 0.25, False),
        ({"score": 0, "passed": False, "issues": []}, 0.0, False),
    ],
)
async def test_a_verifier_s_answer(answer: Any, score: float, passed: bool) -> None:
    async with listening(answered(answer)) as listener:
        found = await evaluated(listener.url, fields={"weight": 2.0})

    assert found == Evaluation("webhook", "verifier", True, 2.0, passed, score)


async def test_a_judge_s_answer_is_neither_passed_nor_hard() -> None:
    async with listening(answered({"score": 1.0, "passed": None})) as listener:
        found = await evaluated(listener.url, authority="judge")

    assert found == Evaluation("webhook", "judge", False, 1.0, None, 1.0)


async def test_issues() -> None:
    issues = [
        {"rule": "jargon", "message": " 'leverage' is jargon ", "instruction": "Write 'use'."},
        {"message": "It is dull."},
    ]
    async with listening(answered({"score": 0.5, "issues": issues})) as listener:
        found = await evaluated(listener.url, fields={"hard": False})

    assert not found.hard
    assert [(issue.rule, issue.message, issue.instruction) for issue in found.issues] == [
        ("jargon", "'leverage' is jargon", "Write 'use'."),
        ("webhook", "It is dull.", "It is dull."),
    ]


HUGE = b"HTTP/1.1 200 -\r\nContent-Length: 100000000\r\n\r\n" + b" " * 1_000_000
WRONG: list[tuple[Answer, str]] = [
    (answered(b""), "Invalid JSON"),
    (answered(b"score: 1"), "Invalid JSON"),
    (answered(b'{"score": 1} {}'), "Invalid JSON"),
    (answered(b"[" * 60_000), "Invalid JSON"),
    (answered(b'{"score": "\xff"}'), "Invalid JSON"),
    (answered(1.0), "the answer is wrong"),
    (answered([]), "the answer is wrong"),
    (answered({}), "score"),
    (answered({"score": None}), "score"),
    (answered({"score": "1"}), "score"),
    (answered({"score": True}), "score"),
    (answered({"score": 1.01}), "score"),
    (answered({"score": -0.01}), "score"),
    (answered(b'{"score": NaN}'), "score"),
    (answered(b'{"score": Infinity}'), "score"),
    (answered(b'{"score": 1e999}'), "score"),
    (answered({"score": 1, "passed": False}), "passed must be true exactly when score is 1"),
    (answered({"score": 0.99, "passed": True}), "passed must be true exactly when score is 1"),
    (answered({"score": 1, "passed": 1}), "passed"),
    (answered({"score": 1, "pased": True}), "pased"),
    (answered({"score": 1, "issues": {}}), "issues"),
    (answered({"score": 0, "issues": ["It is dull."]}), "issues: 0"),
    (answered({"score": 0, "issues": [{"rule": "dull"}]}), "issues: 0: message"),
    (answered({"score": 0, "issues": [{"message": " "}]}), "issues: 0: message"),
    (answered({"score": 0, "issues": [{"message": "x" * 501}]}), "issues: 0: message"),
    (answered({"score": 0, "issues": [{"message": "x", "rule": "x" * 65}]}), "issues: 0: rule"),
    (answered({"score": 0, "issues": [{"message": "x", "instruction": "x" * 301}]}), "issues: 0: instruction"),
    (answered({"score": 0, "issues": [{"message": "x"}] * 21}), "issues"),
    (answered({"x" * 60_000: 1}), "the answer is wrong"),
    (answered(b'{"score": 1}' + b" " * 65_536), "more than 65536 bytes"),
    (raw(HUGE), "more than 65536 bytes"),
    (
        raw(
            b"HTTP/1.1 200 -\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"8000\r\n"
            + b" " * 0x8000
            + b"\r\n8000\r\n"
            + b" " * 0x8000
            + b"\r\n1\r\n \r\n"
        ),
        "more than",
    ),
    (answered({"score": 1}, 201), "status 201"),
    (answered({"score": 1}, 404), "status 404"),
    (answered({"score": 1}, 410), "status 410"),
    (answered({"score": 1}, 500), "status 500"),
    (raw(b"HTTP/1.1 204 -\r\n\r\n"), "status 204"),
    (raw(b"", then_close=True), "broke"),
    (raw(b"HTTP/1.1 200", then_close=True), "broke"),
    (raw(b"HTTP/1.1 200 -\r\nContent-Length: 12\r\n\r\n{", then_close=True), "broke"),
    (raw(b"HTTP/1.0 200 -\r\n\r\n{", then_close=True), "Invalid JSON"),
    (raw(b"SSH-2.0-OpenSSH_9.6\r\n", then_close=True), "broke"),
    (raw(b"HTTP/1.1 200 -\r\n" + b"X: " + b"x" * 200_000, then_close=True), "broke"),
]


@pytest.mark.parametrize(("answer", "reason"), WRONG, ids=[reason for _, reason in WRONG])
async def test_any_other_answer_is_an_error_and_is_not_asked_for_again(answer: Answer, reason: str) -> None:
    async with listening(answer) as listener:
        with pytest.raises(WebhookFailed, match=re.escape(reason)) as raised:
            await evaluated(listener.url)

    assert len(listener.requests) == 1
    assert len(str(raised.value)) <= 250
    assert not any(word in str(raised.value) for word in ("hush", "127.0.0.1", str(listener.port)))


async def test_a_judge_that_says_passed_is_refused() -> None:
    async with listening(answered({"score": 1, "passed": True})) as listener:
        with pytest.raises(WebhookFailed, match="left out by a judge"):
            await evaluated(listener.url, authority="judge")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with listening(PASSED) as target, listening(answered(b"", status, f"Location: {target.url}")) as listener:
        with pytest.raises(WebhookFailed, match=f"status {status}"):
            await evaluated(listener.url)

    assert target.connections == 0
    assert len(listener.requests) == 1


async def test_nothing_of_an_answer_is_kept_for_the_next_request() -> None:
    async with listening(answered({"score": 1}, 200, "Set-Cookie: a=b")) as listener:
        webhooks = Webhooks({"style": WebhookSettings(url=listener.url)})
        evaluator = stated(name="style").resolve(Toolbox(webhooks))
        for _ in range(2):
            await evaluator.evaluate(submission())
        await webhooks.close()

    assert listener.connections == 1
    first, second = listener.requests
    assert second.headers.keys() == first.headers.keys()
    assert second.headers["webhook-id"] != first.headers["webhook-id"]


async def test_proxies_and_passwords_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.joinpath("netrc").write_text("machine 127.0.0.1 login someone password hush\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with listening(PASSED) as proxy, listening(PASSED) as listener:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        await evaluated(listener.url)

    assert proxy.connections == 0
    assert "authorization" not in listener.requests[0].headers


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_busy_webhook_is_asked_twice_more(status: int) -> None:
    async with listening(answered(b"", status), answered(b"", 503), PASSED) as listener:
        found = await evaluated(listener.url)

    assert found.passed
    assert len(listener.requests) == 3
    assert len({(request.headers["webhook-id"], request.body) for request in listener.requests}) == 1


async def test_no_fourth_attempt_is_made() -> None:
    async with listening(answered(b"", 503)) as listener:
        with pytest.raises(WebhookBusy, match="status 503"):
            await evaluated(listener.url)

    assert len(listener.requests) == 3


async def test_retry_after_is_waited_for() -> None:
    async with listening(answered(b"", 429, "Retry-After: 1"), PASSED) as listener:
        started = time.monotonic()
        await evaluated(listener.url)

    assert 1.0 <= time.monotonic() - started < 5.0
    first, second = (int(request.headers["webhook-timestamp"]) for request in listener.requests)
    assert first < second  # that of the attempt


@pytest.mark.parametrize("seconds", ["2", "999999"])
async def test_a_retry_after_that_takes_too_long_is_an_error_at_once(seconds: str) -> None:
    async with listening(answered(b"", 429, f"Retry-After: {seconds}")) as listener:
        started = time.monotonic()
        with pytest.raises(WebhookBusy, match="status 429"):
            await evaluated(listener.url, timeout_seconds=2)

    assert time.monotonic() - started < 1.9
    assert len(listener.requests) == 1


@pytest.mark.parametrize("said", ["Wed, 21 Oct 2099 07:28:00 GMT", "-5", "1e9", "soon", "٣"])
async def test_any_other_retry_after_counts_as_not_said(said: str) -> None:
    busy = raw(f"HTTP/1.1 429 -\r\nContent-Length: 0\r\nRetry-After: {said}\r\n\r\n".encode())
    async with listening(busy, PASSED) as listener:
        assert (await evaluated(listener.url)).passed


async def test_a_refused_connection_is_tried_three_times(connects: list[Any]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        port = unused.getsockname()[1]
        with pytest.raises(WebhookFailed, match="no connection could be made"):
            await evaluated(f"http://127.0.0.1:{port}/")

    assert connects == [("127.0.0.1", port)] * 3


async def silence(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def trickle(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 -\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("answer", [silence, trickle])
async def test_a_slow_answer_is_an_error_in_time_and_is_not_asked_for_again(answer: Answer) -> None:
    async with listening(answer) as listener:
        started = time.monotonic()
        with pytest.raises(WebhookFailed, match=r"^no answer within 0\.5 seconds$"):
            await evaluated(listener.url, timeout_seconds=0.5)

    assert 0.5 <= time.monotonic() - started < 5.0
    assert len(listener.requests) == 1


async def test_a_cancelled_evaluation_ends_its_request() -> None:
    left = asyncio.Event()

    async def until_left(writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"HTTP/1.1 100 -\r\n\r\n")
            await asyncio.sleep(0.01)
        left.set()

    async with listening(until_left) as listener:
        task = asyncio.ensure_future(evaluated(listener.url))
        await until_asked(listener)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(20):
            await left.wait()


async def until_asked(listener: Listener) -> None:
    async with asyncio.timeout(20):
        while not listener.requests:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": "style", "url": "https://hooks.example.com/"},
        {"name": ""},
        {"name": "x" * 65},
        {"url": ""},
        {"url": "https://hooks.example.com/" + "x" * 2048},
        {"name": "style", "weight": 0},
        {"name": "style", "hard": "yes"},
        {"name": "style", "authority": "verifier"},
        {"name": "style", "timeout_seconds": 60},
        {"name": 1},
    ],
)
def test_what_makes_no_sense_cannot_be_stated(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        stated(**fields)


def test_an_unknown_name_is_refused_without_telling_the_others() -> None:
    tools = Toolbox(Webhooks({"style": WebhookSettings(url="http://internal.example/")}))
    with pytest.raises(RefusedField, match="not configured a webhook of this name") as raised:
        stated(name="Style").resolve(tools)

    assert raised.value.field == "name"
    assert "style" not in str(raised.value)
    assert "internal" not in str(raised.value)


def test_without_settings_there_are_no_webhooks() -> None:
    for fields in ({"name": "style"}, {"url": "https://hooks.example.com/"}):
        with pytest.raises(RefusedField) as raised:
            stated(**fields).resolve(Toolbox())
        assert raised.value.field in fields


@pytest.mark.parametrize(
    ("authority", "stated_hard", "hard"),
    [
        ("verifier", None, True),
        ("verifier", True, True),
        ("verifier", False, False),
        ("judge", None, False),
        ("judge", False, False),
    ],
)
def test_hard_is_for_verifiers(authority: Any, stated_hard: bool | None, hard: bool) -> None:
    webhooks = Webhooks({"style": WebhookSettings(url="http://internal.example/", authority=authority)})
    evaluator = stated(name="style", hard=stated_hard).resolve(Toolbox(webhooks))

    assert (evaluator.authority, evaluator.hard, evaluator.type) == (authority, hard, "webhook")


def test_a_judge_cannot_be_hard() -> None:
    webhooks = Webhooks({"style": WebhookSettings(url="http://internal.example/", authority="judge")})
    with pytest.raises(RefusedField, match="never hard") as raised:
        stated(name="style", hard=True).resolve(Toolbox(webhooks))

    assert raised.value.field == "hard"


def test_a_secret_file_must_hold_a_secret(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for file, reason in ((empty, "no secret in"), (tmp_path / "none", "FileNotFoundError"), (tmp_path, "IsADirectory")):
        with pytest.raises(WebhookMisconfigured, match=rf"^REDRAFT_WEBHOOKS: style: .*{reason}"):
            Webhooks({"style": WebhookSettings(url="http://internal.example/", secret_file=file)})


@pytest.mark.parametrize(
    "secret",
    [
        "hush",
        "whsec_",
        "whsec_hush!",
        SECRET.removeprefix("whsec_"),
        SECRET.replace("whsec_", "whsk_"),
        SECRET[:-1],
        SECRET[:20] + "_" + SECRET[21:],
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        f"{SECRET}\nhush",
    ],
)
def test_a_secret_in_another_form_keeps_the_service_from_starting(tmp_path: Path, secret: str) -> None:
    file = tmp_path / "secret"
    file.write_text(secret)
    with pytest.raises(WebhookMisconfigured, match=r"^REDRAFT_WEBHOOKS: style: .* 24 to 64 bytes in base64$") as raised:
        Webhooks({"style": WebhookSettings(url="http://internal.example/", secret_file=file)})

    assert not any(word in str(raised.value) for word in ("hush", *secret.split()) if word != "whsec_")


@pytest.mark.parametrize("size", [24, 64])
async def test_the_shortest_and_the_longest_secret(tmp_path: Path, is_authentic: Any, size: int) -> None:
    secret = "whsec_" + base64.b64encode(bytes(range(size))).decode()
    received = await sent(tmp_path, secret)
    assert is_authentic(secret, received.headers, received.body)


def test_nothing_secret_is_printed(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    settings = WebhookSettings(url="http://internal.example/?token=hush", secret_file=file)
    evaluator = stated(name="style").resolve(Toolbox(Webhooks({"style": settings})))

    for printed in (repr(settings), repr(evaluator)):
        assert "hush" not in printed
        assert SECRET not in printed
        assert "a secret" not in printed
