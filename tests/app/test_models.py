"""A service with further models, which are other services over HTTP: who is asked, what is told, and what if one is
gone."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.engines.base import Weigh
from service.engines.scripted import EngineCall, Script, ScriptedEngine
from service.engines.served import ServedEngine
from tests.support.scripts import role_of
from tests.support.serving import Served, reply, serving

PROMPT = {"prompt": "Write about the sea."}
SALT = {"evaluators": [{"type": "keywords", "include": ["salt"]}]}
ALWAYS = {"search": {"rounds": 1, "critic": "model"}}
NOBODY = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Pair:
    """The service, and one whose model ``aide`` it has beside its own."""

    front: Served
    aide: Served

    def roles(self) -> tuple[set[str], set[str]]:
        """What the two engines were asked for since the service was ready."""
        return roles_asked(self.front), roles_asked(self.aide)


def roles_asked(served: Served) -> set[str]:
    """The roles of an engine's calls, but for texts that are weighed: judge and critic share those."""
    return {role_of(call) for call in served.engine.calls if not isinstance(call, Weigh)}


async def ready(front: Served, *models: str) -> None:
    """Return once the models can be asked."""
    for model in models:
        response = None
        while response is None or response.status_code == 503:
            response = await front.post("/v1/generate", {**PROMPT, "model": model})
        assert response.status_code == 200, response.text


@asynccontextmanager
async def pair(**settings: Any) -> AsyncIterator[Pair]:
    async with serving(Script(reply=reply)) as aide:
        models = {"aide": {"urls": [str(aide.client.base_url)], "model": "scripted"}}
        async with serving(models=models, **settings) as front:
            await ready(front, "aide")
            front.engine.calls.clear()
            aide.engine.calls.clear()
            yield Pair(front, aide)


async def test_the_writer_is_named_by_model() -> None:
    async with pair() as services:
        body = (await services.front.post("/v1/refine", {**PROMPT, **SALT, "model": "aide"})).json()

        assert (body["model"], body["models"]) == ("aide", dict.fromkeys(("writer", "critic", "judge"), "aide"))
        assert body["text"] == "Salt waves."
        assert services.front.engine.calls == []


async def test_each_role_goes_to_its_model_and_the_answer_the_events_and_the_metrics_tell_so() -> None:
    expected = {"writer": "scripted", "critic": "aide", "judge": "scripted"}
    async with pair(critic="aide") as services:
        told = await services.front.stream("/v1/refine", {**PROMPT, **SALT, **ALWAYS})
        page = (await services.front.client.get("/metrics")).text

        assert services.roles() == ({"draft", "judge", "revise"}, {"critique"})
        assert [data["models"] for name, data in told if name in ("started", "done")] == [expected, expected]
    series = [s for family in text_string_to_metric_families(page) for s in family.samples]
    steps = {(s.labels["role"], s.labels["model"]) for s in series if s.name == "redraft_step_seconds_count"}
    assert steps >= {("draft", "scripted"), ("revise", "scripted"), ("judge", "scripted"), ("critique", "aide")}
    assert ("critique", "scripted") not in steps


async def test_a_critique_asks_the_judge_that_it_names() -> None:
    async with pair() as services:
        asked = {**PROMPT, "candidate": "Sand.", "feedback": False, "models": {"judge": "aide"}}
        body = (await services.front.post("/v1/critique", asked)).json()

        assert body["models"] == {"writer": "scripted", "critic": "scripted", "judge": "aide"}
        assert services.front.engine.calls == []
        assert len(services.aide.engine.calls) == len(body["evaluations"][0]["criteria"])


async def test_openai_s_clients_name_every_model_and_its_modes() -> None:
    async with pair() as services:
        listed = [model["id"] for model in (await services.front.client.get("/v1/models")).json()["data"]]
        asked = {"messages": [{"role": "user", "content": "Why?"}], "model": "aide:refine"}
        body = (await services.front.post("/v1/chat/completions", {**asked, "redraft": SALT})).json()
        models = {"models": {"critic": "scripted", "judge": "scripted"}}
        mixed = (await services.front.post("/v1/chat/completions", {**asked, "redraft": models})).json()
        wrong = await services.front.post("/v1/chat/completions", {**asked, "redraft": {"models": {"writer": "x"}}})

        assert {"scripted", "aide", "scripted:refine", "aide:refine", "aide:best-of-n"} <= set(listed)
        assert (await services.front.client.get("/v1/models/aide:refine")).status_code == 200
        assert body["choices"][0]["message"]["content"] == "Salt waves."
        assert body["redraft"]["models"]["writer"] == "aide"
        assert mixed["redraft"]["models"] == {"writer": "aide", "critic": "scripted", "judge": "scripted"}
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "redraft.models.writer")


@pytest.mark.parametrize("setting", ["critic", "judge"])
async def test_a_model_that_does_not_answer_keeps_only_those_waiting_who_need_it(setting: str) -> None:
    async with serving(models={"lost": {"urls": [NOBODY]}}) as front:
        while "still loading" in (await front.post("/v1/generate", {**PROMPT, "model": "lost"})).text:
            await asyncio.sleep(0.002)
        assert (await front.post("/v1/refine", {**PROMPT, **SALT})).status_code == 200
        refused = await front.post("/v1/refine", {**PROMPT, "models": {setting: "lost"}})
        assert (refused.status_code, refused.json()["code"]) == (503, "engine_unavailable")
        assert "lost cannot serve: the engine's server cannot be reached" in refused.json()["detail"]

    settings: dict[str, Any] = {"models": {"lost": {"urls": [NOBODY]}}, setting: "lost"}
    async with serving(start=scripted, **settings) as front:
        while (response := await front.client.get("/health/ready")).json()["code"] == "starting":
            await asyncio.sleep(0.002)
        assert (response.status_code, response.json()["code"]) == (503, "engine_unavailable")
        assert (await front.client.get("/health/live")).status_code == 200


async def scripted(*_: object) -> ServedEngine:
    return ScriptedEngine()


async def test_a_judge_that_goes_down_is_told_in_the_evaluation_and_loses_nothing() -> None:
    async with pair(judge="aide") as services:

        def gone(call: EngineCall) -> None:
            raise RuntimeError("gone")  # a 503 with Retry-After would be waited for

        services.aide.engine.script = Script(reply=reply, fault=gone)
        body = (await services.front.post("/v1/refine", {**PROMPT, **SALT, "search": {"rounds": 1}})).json()

        assert (body["text"], body["stop_reason"]) == ("Salt waves.", "rounds")
        keywords, judge = body["rounds"][1]["candidates"][0]["evaluations"]
        assert (keywords["score"], keywords["error"]) == (1.0, None)
        assert judge["score"] is None
        assert judge["error"].startswith("aide cannot serve: ")


async def test_settings_that_can_never_be_met_end_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:9")
    async with serving(models={"aide": {"urls": ["http://aide.example"]}}) as front:
        await front.until(lambda: bool(front.failures))
        [failure] = front.failures
        assert "is not an HTTP proxy" in str(failure)
        refused = await front.post("/v1/generate", {**PROMPT, "model": "aide"})
        assert (refused.status_code, refused.json()["code"]) == (503, "engine_dead")


async def test_the_key_of_a_file_opens_the_servers(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("open-sesame\n")
    digest = hashlib.sha256(b"open-sesame").hexdigest()
    async with serving(start=scripted, api_keys=f"front:{digest}") as aide:
        models = {"aide": {"urls": [str(aide.client.base_url)], "model": "scripted", "key_file": str(file)}}
        async with serving(models=models) as front:
            await ready(front, "aide")
