import asyncio
import re
from collections.abc import Callable

import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.types import Message, Receive, Scope, Send

from service.api.disconnect import ClientLeft
from service.api.middleware import REFUSED, BodyLimit, RequestContext, RequestRecord, request_id
from service.api.problems import install
from service.errors import HeadersTooLarge, MalformedRequest
from tests.support.peer import Peer


def made_app(on_finished: Callable[[RequestRecord], None] = lambda record: None) -> FastAPI:
    app = FastAPI()
    install(app)
    app.add_middleware(BodyLimit, max_bytes=10)
    app.add_middleware(RequestContext, on_finished=on_finished)
    router = APIRouter()

    @router.get("/tasks/{name}")
    async def task(name: str, request: Request) -> str:
        request.state.caller = "ann"
        return request_id(request)

    @router.post("/size")
    async def size(request: Request) -> int:
        return len(await request.body())

    @router.get("/bug")
    async def bug() -> None:
        raise KeyError("password")

    @router.get("/left")
    async def left() -> None:
        raise ClientLeft

    app.include_router(router, prefix="/v1")
    return app


async def get(path: str, **headers: str) -> tuple[Peer, RequestRecord]:
    records: list[RequestRecord] = []
    peer = Peer(path=path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    await peer.call(made_app(records.append))
    (record,) = records
    return peer, record


async def test_a_sane_id_is_kept() -> None:
    peer, record = await get("/v1/tasks/one", x_request_id="Trace-1.a_b")
    assert peer.json == peer.headers["x-request-id"] == record.request_id == "Trace-1.a_b"


@pytest.mark.parametrize("offered", ["", "a b", "x" * 129, "a\n", "é"])
async def test_another_id_is_replaced(offered: str) -> None:
    peer, record = await get("/v1/tasks/one", x_request_id=offered)
    assert re.fullmatch("[0-9a-f]{32}", record.request_id)
    assert peer.json == peer.headers["x-request-id"] == record.request_id


@pytest.mark.parametrize(
    ("path", "endpoint", "status", "caller"),
    [
        ("/v1/tasks/one", "/v1/tasks/{name}", 200, "ann"),
        ("/v1/size", "/v1/size", 405, None),
        ("/secret/path", "unmatched", 404, None),
        ("/v1/bug", "/v1/bug", 500, None),
        ("/v1/left", "/v1/left", 499, None),
    ],
)
async def test_a_request_is_recorded_once(path: str, endpoint: str, status: int, caller: str | None) -> None:
    peer, record = await get(path)
    assert (record.endpoint, record.method, record.status, record.caller) == (endpoint, "GET", status, caller)
    assert record.seconds > 0
    assert bool(peer.sent) == (status != 499)


async def test_a_bug_gets_a_problem_with_the_id(caplog: pytest.LogCaptureFixture) -> None:
    peer, _ = await get("/v1/bug", x_request_id="r7")
    assert (peer.status, peer.json["code"], peer.headers["x-request-id"]) == (500, "internal_error", "r7")
    assert b"password" not in peer.body
    assert [entry.getMessage() for entry in caplog.records] == ["request r7 failed"]


async def test_a_bug_after_the_response_began_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        raise KeyError

    records: list[RequestRecord] = []
    peer = Peer()
    await peer.call(RequestContext(app, records.append))
    assert [message["type"] for message in peer.sent] == ["http.response.start"]
    assert records[0].status == 200
    assert len(caplog.records) == 1


async def test_a_request_that_the_server_refuses_never_reaches_the_app() -> None:
    peer = Peer(path="/v1/size", method="POST")
    peer.scope["state"][REFUSED] = HeadersTooLarge("there are too many")
    await peer.call(RequestContext(refuses_to_run, lambda record: None))
    assert (peer.status, peer.json["code"]) == (431, "headers_too_large")
    assert peer.headers["x-request-id"]


async def refuses_to_run(scope: Scope, receive: Receive, send: Send) -> None:
    pytest.fail("the app ran")


async def test_what_the_server_refuses_while_the_body_is_read_becomes_the_response() -> None:
    peer = Peer(method="POST", path="/v1/size")
    app = made_app()

    async def receive() -> Message:
        peer.scope["state"][REFUSED] = MalformedRequest("a chunk has no size")
        return {"type": "http.request", "body": b"", "more_body": True}

    await app(peer.scope, receive, peer.send)
    assert (peer.status, peer.json["code"]) == (400, "malformed_request")


async def test_a_request_that_is_cancelled_with_the_server_says_so() -> None:
    begun = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.Event().wait()

    records: list[RequestRecord] = []
    peer = Peer()
    call = asyncio.create_task(peer.call(RequestContext(app, records.append)))
    await begun.wait()
    call.cancel()
    await call
    assert (peer.status, peer.json["code"], peer.headers["retry-after"]) == (503, "draining", "1")
    assert peer.headers["connection"] == "close"
    assert [record.status for record in records] == [503]


async def test_a_cancelled_request_is_recorded() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise SystemExit

    records: list[RequestRecord] = []
    with pytest.raises(SystemExit):
        await Peer().call(RequestContext(app, records.append))
    assert [record.status for record in records] == [499]


async def test_a_body_up_to_the_limit_passes() -> None:
    declared = Peer(b"x" * 10, method="POST", path="/v1/size", headers={"content-length": "10"})
    await declared.call(made_app())
    assert (declared.status, declared.json) == (200, 10)
    chunked = Peer(b"x" * 5, b"x" * 5, method="POST", path="/v1/size")
    await chunked.call(made_app())
    assert (chunked.status, chunked.json) == (200, 10)


async def test_a_declared_body_past_the_limit_is_not_read() -> None:
    peer = Peer(b"x", method="POST", path="/v1/size", headers={"content-length": "11"})
    await peer.call(made_app())
    assert (peer.status, peer.json["code"], peer.received) == (413, "body_too_large", 0)
    assert peer.headers["content-type"] == "application/problem+json"
    assert "x-request-id" in peer.headers


@pytest.mark.parametrize("declared", ["0" * 5_000 + "5", "9" * 5_001, "+5", "5_0", "-5", "5.0", "", "²", "5, 5", "0x5"])
async def test_a_declared_length_that_is_no_number_is_refused(declared: str) -> None:
    peer = Peer(b"xxxxx", method="POST", path="/v1/size")
    peer.scope["headers"].append((b"content-length", declared.encode("latin-1")))
    await peer.call(made_app())
    assert (peer.status, peer.json["code"], peer.received) == (400, "malformed_request", 0)


async def test_a_streamed_body_is_read_no_further_than_the_limit() -> None:
    peer = Peer(*[b"xxxx"] * 100, method="POST", path="/v1/size")
    await peer.call(made_app())
    assert (peer.status, peer.json["code"], peer.received) == (413, "body_too_large", 3)
    assert "x-request-id" in peer.headers


async def test_what_is_not_http_passes_untouched() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    peer = Peer()
    peer.scope = {"type": "lifespan"}
    await peer.call(RequestContext(BodyLimit(app, 1), lambda record: pytest.fail("nothing was requested")))
    assert seen == [{"type": "lifespan"}]


async def test_the_status_of_any_response_is_recorded() -> None:
    records: list[RequestRecord] = []
    await Peer().call(RequestContext(Response(status_code=204), records.append))
    assert [(record.status, record.endpoint) for record in records] == [(204, "unmatched")]
