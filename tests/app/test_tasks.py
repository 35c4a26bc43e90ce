"""Tasks, choices and rubrics over HTTP, with an engine that follows a script."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.engines.base import Sample
from service.engines.scripted import Script
from service.tasks.task import load_rubrics, load_tasks
from tests.support.scripts import role_of
from tests.support.serving import Served, serving

PROMPT = {"prompt": "It broke after a week."}
LABELS = ("good", "bad", "so-so")
CRITICAL = json.dumps({"issues": ["Say more."]})


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    def reply(call: Sample) -> str:
        seed = call.sampling.seed if call.sampling else None
        return CRITICAL if call.schema is not None else f"Text {seed}: {call.prompt}"

    async with serving(Script(reply=reply)) as service:
        yield service


async def refined(served: Served, **request: Any) -> Any:
    response = await served.post("/v1/refine", request)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("name", load_tasks())
async def test_the_example_that_a_task_shows_works_as_it_stands(served: Served, name: str) -> None:
    shown = (await served.client.get(f"/v1/tasks/{name}")).json()

    body = await refined(served, **shown["example"])

    told = [candidate["text"] for ended in body["rounds"] for candidate in ended["candidates"]]
    assert shown["choices"] == list(load_tasks()[name].sampling.choices)
    assert body["text"].strip()
    assert not shown["choices"] or set(told) <= set(shown["choices"])
    assert served.engine.in_flight == 0


async def test_drafts_and_revisions_are_of_the_choices_and_critiques_are_not(served: Served) -> None:
    search = {"preset": "beam", "rounds": 2, "critic": "model"}
    body = await refined(served, **PROMPT, sampling={"choices": LABELS, "seed": 1}, search=search)

    told = {candidate["text"] for ended in body["rounds"] for candidate in ended["candidates"]}
    asked = {
        role: [call for call in served.engine.calls_of(Sample) if role_of(call) == role] for role in ("draft", "revise")
    }
    others = [call.sampling for call in served.engine.calls_of(Sample) if call not in asked["draft"] + asked["revise"]]
    assert len(told) > 1
    assert told <= set(LABELS)
    assert all(call.sampling.choices == LABELS for calls in asked.values() for call in calls)
    assert asked["draft"]
    assert asked["revise"]
    assert any(others)
    assert all(sampling is None or sampling.choices == () for sampling in others)
    assert "Say more." in body["rounds"][1]["critiques"][0]["issues"]


@pytest.mark.parametrize("stream", [False, True])
async def test_generate_writes_one_of_the_choices(served: Served, stream: bool) -> None:
    request = {"prompt": ["It broke.", "It works."], "n": 3, "sampling": {"choices": LABELS, "seed": 1}}

    if stream:
        events = await served.stream("/v1/generate", request)
        texts = dict.fromkeys(((data["prompt_index"], data["index"]) for name, data in events if name == "delta"), "")
        for name, data in events:
            if name == "delta":
                texts[data["prompt_index"], data["index"]] += data["text"]
        told = list(texts.values())
    else:
        told = [choice["text"] for choice in (await served.post("/v1/generate", request)).json()["choices"]]

    assert len(told) == 6
    assert set(told) <= set(LABELS)


async def test_a_vote_on_labels_takes_the_one_that_most_drafts_chose(served: Served) -> None:
    body = await refined(served, **PROMPT, task="sentiment", sampling={"seed": 3})

    told = [candidate["text"] for candidate in body["rounds"][0]["candidates"]]
    assert len(told) == 5
    assert told.count(body["text"]) == max(map(told.count, told))


async def test_a_schema_beside_choices_is_refused(served: Served) -> None:
    request = {**PROMPT, "sampling": {"choices": LABELS}, "response_schema": {"type": "object"}}

    response = await served.post("/v1/generate", request)

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["response_schema"]


async def test_rubrics_are_shown_whole(served: Served) -> None:
    shown = (await served.client.get("/v1/rubrics")).json()["rubrics"]

    assert [rubric["name"] for rubric in shown] == list(load_rubrics())
    for rubric, known in zip(shown, load_rubrics().values(), strict=True):
        assert rubric.keys() == {"name", "description", "principles", "criteria"}
        assert (rubric["description"], rubric["principles"]) == (known.description, list(known.principles))
        assert [line["question"] for line in rubric["criteria"]] == [line.question for line in known.criteria]
        assert rubric["criteria"][0].keys() == {"name", "question", "weight"}


@pytest.mark.parametrize("path", ["/v1/critique", "/v1/refine"])
async def test_a_rubric_is_judged_and_an_unknown_one_refused(served: Served, path: str) -> None:
    request = {**PROMPT, **({"candidate": "Waves."} if path == "/v1/critique" else {"search": {"rounds": 0}})}

    answered = (await served.post(path, {**request, "rubrics": ["bias", "safety"]})).json()
    refused = await served.post(path, {**request, "rubrics": ["bias", "magic"]})

    judged = (
        answered["evaluations"] if "evaluations" in answered else answered["rounds"][0]["candidates"][0]["evaluations"]
    )
    added = [line.name for rubric in load_rubrics().values() for line in rubric.criteria]
    assert [line["name"] for line in judged[-1]["criteria"]][3:] == added
    assert refused.status_code == 422
    assert [error["field"] for error in refused.json()["errors"]] == ["rubrics.1"]


async def test_the_critic_is_told_a_principle_of_the_rubric(served: Served) -> None:
    await refined(served, **PROMPT, rubrics=["safety"], search={"rounds": 1, "critic": "model"})

    principles = load_rubrics()["safety"].principles
    critiques = [call.prompt for call in served.engine.calls_of(Sample) if call.schema is not None]
    assert critiques
    assert all(any(principle in prompt for principle in principles) for prompt in critiques)
