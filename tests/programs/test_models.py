"""Who plays which role in a request: by the request, the operator, or the writer, in that order."""

import json
from dataclasses import replace
from typing import Any

import pytest

from service.errors import InvalidRequest
from service.programs.models import ServedModels
from service.refinement.roles import Models
from service.wire.requests import CritiqueRequest, GenerateRequest, RefineRequest

SERVED = ServedModels(("main", "eye", "scale"))
CHOSEN = ServedModels(("main", "eye", "scale"), critic="eye", judge="scale")
LEARNS = ServedModels(("main", "learned"), resolve=lambda name: "learned@1" if name == "learned" else name)
BEGINS = ServedModels(("main", "learned"), resolve=lambda name: "main")


def models(served: ServedModels, kind: type[Any] = RefineRequest, **fields: Any) -> Models:
    candidate = {"candidate": "Sand."} if kind is CritiqueRequest else {}
    return served.of(kind.model_validate_json(json.dumps({"prompt": "Why?", **candidate, **fields})))


@pytest.mark.parametrize(
    ("served", "fields", "expected"),
    [
        (SERVED, {}, ("main", "main", "main")),
        (SERVED, {"model": "eye"}, ("eye", "eye", "eye")),
        (SERVED, {"models": {"writer": "eye"}}, ("eye", "eye", "eye")),
        (SERVED, {"model": "eye", "models": {"writer": "eye", "judge": "scale"}}, ("eye", "eye", "scale")),
        (SERVED, {"model": "eye", "models": {"writer": None, "critic": "main"}}, ("eye", "main", "eye")),
        (CHOSEN, {}, ("main", "eye", "scale")),
        (CHOSEN, {"model": "scale"}, ("scale", "eye", "scale")),
        (CHOSEN, {"models": {"critic": "main", "judge": "main"}}, ("main", "main", "main")),
        (LEARNS, {}, ("main", "main", "main")),
        (LEARNS, {"model": "learned"}, ("learned@1", "main", "main")),
        (LEARNS, {"model": "learned", "models": {"judge": "learned"}}, ("learned@1", "main", "learned@1")),
        (BEGINS, {"model": "learned"}, ("main", "main", "main")),
    ],
)
def test_the_request_comes_before_the_operator_and_the_operator_before_the_writer(
    served: ServedModels, fields: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    assert models(served, **fields) == Models(*expected)


def test_only_a_model_that_learns_has_a_candidate() -> None:
    asked: list[str] = []

    def draw(writer: str) -> str:
        asked.append(writer)
        return "learned@2"

    tries = replace(LEARNS, draw_candidate=draw)
    for fields, expected in (
        ({}, None),
        ({"model": "learned"}, "learned@2"),
        ({"models": {"writer": "learned"}}, "learned@2"),
    ):
        request = RefineRequest.model_validate_json(json.dumps({"prompt": "Why?", **fields}))
        assert tries.with_candidate(tries.of(request), request).candidate == expected
    assert asked == ["learned@1", "learned@1"]


def test_a_critique_has_a_critic_and_a_judge_and_a_generation_only_a_writer() -> None:
    assert models(CHOSEN, CritiqueRequest, models={"judge": "eye"}) == Models("main", "eye", "eye")
    assert models(CHOSEN, GenerateRequest, model="scale") == Models.single("scale")


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"model": "nobody"}, ["model"]),
        ({"model": "eye:refine"}, ["model"]),
        ({"models": {"judge": "nobody", "critic": ""}}, ["models.critic", "models.judge"]),
        ({"models": {"writer": "nobody"}}, ["models.writer"]),
        ({"model": "eye", "models": {"writer": "scale"}}, ["models.writer"]),
    ],
)
def test_a_name_that_there_is_not_or_a_second_writer_is_refused(fields: dict[str, Any], wrong: list[str]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        models(SERVED, **fields)

    assert [error.field for error in refused.value.errors] == wrong
    said = "another writer, eye" if fields.get("model") == "eye" else "there are main, eye, scale"
    assert all(said in error.message for error in refused.value.errors)


def test_the_service_needs_its_main_model_and_the_operator_s_choice() -> None:
    assert SERVED.needed == Models.single("main")
    assert CHOSEN.needed == Models("main", "eye", "scale")
