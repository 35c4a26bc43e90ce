"""The service before servers as they are: it comes up and works, or says why not."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from service.engines.remote import probes
from service.engines.remote import replica as one_replica
from service.engines.remote.connect import Tokenizers
from service.engines.served import EngineMisconfigured, ServedEngine
from service.fleet import start_engine
from service.settings import Settings
from tests.support.serving import Served, listening, serving
from tests.support.stand_ins import (
    METHODS,
    MODEL,
    STAND_INS,
    BareProxy,
    LlamaCpp,
    LMStudio,
    Ollama,
    StandIn,
    TextGenerationInference,
    page,
)

SECONDS = 15.0
"""Within which it is known whether the service can work before a server."""
PROMPT = {"prompt": "Write about the sea."}
RIGHT = {"name": "right", "question": "Is it right?"}
SALT = {"evaluators": [{"type": "keywords", "include": ["salt"]}]}


@asynccontextmanager
async def before(url: str, model: str = MODEL, key: str | None = None, **settings: Any) -> AsyncIterator[Served]:
    """The service whose engine is the server at an address, as ``python -m service`` would start it."""

    async def start(_: Settings, tokenizers: Tokenizers) -> ServedEngine:
        remote = Settings(engine="openai", engine_urls=url, model=model, engine_key=key)
        return await start_engine(remote, tokenizers)

    async with serving(start=start, **settings) as front:
        yield front


async def readiness(front: Served) -> httpx.Response:
    """The first answer that says more than that the engine still loads."""
    async with asyncio.timeout(SECONDS):
        while (told := await front.client.get("/health/ready")).json().get("code") == "starting":
            await asyncio.sleep(0.02)
    return told


async def ready(front: Served) -> None:
    async with asyncio.timeout(SECONDS):
        while (told := await front.client.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.02)
    assert told.json() == {"status": "ready"}


@pytest.mark.parametrize("kind", STAND_INS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("key", [None, "open-sesame"])
async def test_the_service_comes_up_and_works_before(kind: type[StandIn], key: str | None) -> None:
    server = kind(key=key)
    async with listening(server.app()) as url, before(url, key=key) as front:
        await ready(front)
        generated = await front.post("/v1/generate", {**PROMPT, "sampling": {"max_tokens": 2}})
        streamed = await front.stream("/v1/generate", PROMPT)
        refined = await front.post("/v1/refine", {**PROMPT, **SALT, "search": {"rounds": 1}})

    assert generated.status_code == 200, generated.text
    assert generated.json()["choices"][0] == {
        "prompt_index": 0,
        "index": 0,
        "text": "The sea",
        "finish_reason": "length",
    }
    assert "".join(data["text"] for name, data in streamed if name == "delta") == "The sea has salt waves."
    assert streamed[-1][1]["choices"][0]["finish_reason"] == "stop"
    assert streamed[-1][1]["usage"]["completion_tokens"] == 6
    assert refined.status_code == 200, refined.text
    assert refined.json()["text"] == "The sea has salt waves."
    assert refined.json()["passed"] is True


@pytest.mark.parametrize("kind", STAND_INS, ids=lambda kind: kind.name)
async def test_a_judge_scores_before(kind: type[StandIn]) -> None:
    server = kind()
    async with listening(server.app()) as url, before(url) as front:
        await ready(front)
        server.bodies.clear()
        judged = await front.post(
            "/v1/critique", {**PROMPT, "candidate": "Waves.", "criteria": [RIGHT], "feedback": False}
        )

    assert judged.status_code == 200, judged.text
    [evaluation] = judged.json()["evaluations"]
    known = 1.0 if kind is LMStudio else 0.5  # it has no probabilities, so its answer counts
    assert evaluation["score"] == pytest.approx(known, abs=0.05), evaluation
    asked = {LMStudio: None, TextGenerationInference: 5}.get(kind, 20)
    assert {body.get("top_logprobs") for body in server.bodies} == {asked}


@pytest.mark.parametrize("kind", STAND_INS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("sent", [None, "another-key"])
async def test_a_key_that_is_not_the_server_s_is_told(kind: type[StandIn], sent: str | None) -> None:
    async with listening(kind(key="open-sesame").app()) as url, before(url, key=sent) as front:
        told = await readiness(front)
        refused = await front.post("/v1/generate", PROMPT)
        alive = await front.client.get("/health/live")

    assert (told.status_code, told.json()["code"]) == (503, "engine_unavailable")
    assert "refuses the key" in told.json()["detail"]
    assert (refused.status_code, refused.json()["detail"]) == (503, told.json()["detail"])
    assert alive.status_code == 200
    assert "sesame" not in told.text
    assert "another-key" not in told.text


@pytest.mark.parametrize("kind", STAND_INS, ids=lambda kind: kind.name)
async def test_a_model_that_the_server_does_not_have_is_told(kind: type[StandIn]) -> None:
    async with listening(kind().app()) as url, before(url, model="another") as front:
        told = await readiness(front)

    assert (told.status_code, told.json()["code"]) == (503, "engine_unavailable")
    said = "The model `another` does not exist" if kind is BareProxy else f"has no model 'another'; it has {MODEL}"
    assert said in told.json()["detail"]


def no_api(status: int, body: str = "") -> Callable[[], Starlette]:
    async def answer(_: Request) -> Response:
        return Response(body, status, media_type="text/html")

    return lambda: Starlette(routes=[Route("/{path:path}", answer, methods=METHODS)])


def other_api() -> Starlette:
    """Answers every path with JSON of its own."""

    async def answer(_: Request) -> Response:
        return JSONResponse({"status": "ok", "version": "2.1"})

    return Starlette(routes=[Route("/{path:path}", answer, methods=METHODS)])


@pytest.mark.parametrize(
    ("app", "said"),
    [
        (no_api(404), "OpenAI server?"),
        (no_api(405), "OpenAI server?"),
        (no_api(200, "<html><body>Welcome</body></html>"), "OpenAI server?"),
        (no_api(200), "OpenAI server?"),
        (other_api, "OpenAI server?"),
        (no_api(403, "<html>"), "refuses the key"),
        (no_api(500, "oops"), "status 500"),
        (no_api(502, "<html>Bad Gateway"), "status 502"),
        (LMStudio(loaded=False).app, "No models loaded. Please load a model"),
        (LlamaCpp(loading=True).app, "Loading model"),
        (Ollama(empty=True).app, f"has no model '{MODEL}'; it has none"),
    ],
)
async def test_a_server_that_cannot_serve_is_told_with_its_reason(app: Callable[[], Starlette], said: str) -> None:
    async with listening(app()) as url, before(url) as front:
        told = await readiness(front)

    assert (told.status_code, told.json()["code"]) == (503, "engine_unavailable")
    assert said in told.json()["detail"]
    assert url.removeprefix("http://") not in told.text


async def test_a_server_that_moves_elsewhere_is_not_followed() -> None:
    async def moved(request: Request) -> Response:
        return RedirectResponse("http://127.0.0.1:9/")

    app = Starlette(routes=[Route("/{path:path}", moved, methods=METHODS)])
    async with listening(app) as url, before(url) as front:
        told = await readiness(front)

    assert "status 307" in told.json()["detail"]


async def test_a_server_that_nobody_runs_is_told() -> None:
    async with before("http://127.0.0.1:9") as front:
        told = await readiness(front)

    assert "cannot be reached" in told.json()["detail"]


async def test_each_of_several_servers_has_its_reason() -> None:
    async with listening(LMStudio(loaded=False).app()) as one, before(f"{one}, http://127.0.0.1:9") as front:
        async with asyncio.timeout(SECONDS):
            while "server 2" not in (told := (await readiness(front)).json()["detail"]) or "server 1" not in told:
                await asyncio.sleep(0.05)

    assert "server 1: the engine's server answers no chat: No models loaded" in told


async def test_a_server_that_does_not_answer_yet_is_told_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_replica, "SILENT_SECONDS", 0.05)
    loaded = asyncio.Event()

    class Loading(Ollama):
        async def _answer(self, request: Request) -> Response:
            if request.url.path == "/v1/chat/completions":
                await loaded.wait()
            return await super()._answer(request)

    server = Loading()
    async with listening(server.app()) as url, before(url) as front:
        told = await readiness(front)
        assert "has not yet answered" in told.json()["detail"]
        loaded.set()
        await ready(front)

    assert server.bodies, "the first chat was given up"


async def test_a_server_that_is_set_right_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_replica, "UNUSABLE_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(one_replica, "LOOK_SECONDS", 0.05)
    server = LMStudio(loaded=False)
    async with listening(server.app()) as url, before(url) as front:
        await readiness(front)
        server.loaded = True
        await ready(front)


async def test_a_server_that_cannot_be_used_is_left_in_peace() -> None:
    server = LMStudio(loaded=False)
    async with listening(server.app()) as url, before(url) as front:
        await readiness(front)
        asked = len(server.asked)
        await asyncio.sleep(2.5)

    assert len(server.asked) == asked


async def test_a_server_that_goes_bad_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_replica, "LOOK_SECONDS", 0.05)
    server = BareProxy()
    digest = hashlib.sha256(b"front").hexdigest()
    headers = {"Authorization": "Bearer front"}
    async with listening(server.app()) as url, before(url, api_keys=f"front:{digest}") as front:
        await ready(front)
        server.key = "changed"
        refused = await front.post("/v1/generate", PROMPT, headers=headers)

    assert (refused.status_code, refused.json()["code"]) == (503, "engine_unavailable")
    assert "401" in refused.json()["detail"]


async def test_a_probe_that_hangs_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PROBE_SECONDS", 0.1)

    over = asyncio.Event()

    class Hanging(TextGenerationInference):
        async def _answer(self, request: Request) -> Response:
            if request.method == "POST" and "response_format" in await request.json():
                await over.wait()
            return await super()._answer(request)

    async with listening(Hanging().app()) as url:
        async with before(url) as front:
            await ready(front)
        over.set()


async def test_a_proxy_of_another_kind_does_not_matter_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ALL_PROXY": "socks://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    async with listening(Ollama().app()) as url, before(url) as front:
        await ready(front)


async def test_a_proxy_of_another_kind_ends_the_start_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://somebody:hush@127.0.0.1:9")
    async with before("http://engine.example") as front:
        async with asyncio.timeout(SECONDS):
            while not front.failures:
                await asyncio.sleep(0.01)

    [failure] = front.failures
    assert isinstance(failure, EngineMisconfigured)
    assert "is not an HTTP proxy" in str(failure)
    assert "hush" not in str(failure)


async def test_a_page_of_html_is_no_list_of_models() -> None:
    class Page(BareProxy):
        def models(self) -> Response:
            return page(200)

    async with listening(Page().app()) as url, before(url) as front:
        await ready(front)


async def test_a_bare_list_of_models_is_one_too() -> None:
    class Bare(Ollama):
        def models(self) -> Response:
            return JSONResponse([{"id": self.model}, {"name": "without an id"}, None])

    async with listening(Bare().app()) as url, before(url) as front:
        await ready(front)


@pytest.mark.parametrize("dead", [False, True])
async def test_a_server_is_left_out_for_what_it_cannot_and_not_for_what_one_caller_asks(
    monkeypatch: pytest.MonkeyPatch, *, dead: bool
) -> None:
    monkeypatch.setattr(one_replica, "FAILING_SECONDS", 0.0)

    class Failing(Ollama):
        poisoned = False

        def refusal(self, body: dict[str, Any]) -> Response | None:
            bad = self.poisoned and (dead or "poison" in body["messages"][-1]["content"])
            return Response("oops", 500) if bad else super().refusal(body)

    server = Failing()
    async with listening(server.app()) as url, before(url) as front:
        await ready(front)
        server.poisoned = True
        for _ in range(2 * one_replica.MOST_FAILED):
            assert (await front.post("/v1/generate", {"prompt": "poison"})).status_code == 503
        told = await front.client.get("/health/ready")
        other = await front.post("/v1/generate", PROMPT)

    if dead:
        assert "answers no chat: the engine's server answered with status 500" in told.json()["detail"]
    assert (told.status_code, other.status_code) == ((503, 503) if dead else (200, 200))
