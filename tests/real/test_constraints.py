"""Grammars under the embedded model's own tokenizer, and rules that make trouble on the real engine."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llguidance import LLTokenizer

from service.engines.local.bundled import prepare
from service.evaluators.base import Verifier
from tests.real.conftest import Service
from tests.support.masked_walks import Walker
from tests.support.rule_sets import check_by_walking, rule_sets

pytestmark = pytest.mark.engine

END = 2


@cache
def bundled_walker() -> Walker:
    tokenizer = LLTokenizer((prepare() / "tokenizer.json").read_text(), eos_token=END)
    tokens = [tokenizer.decode_bytes([index]) for index in range(tokenizer.vocab_size)]
    return Walker(tokenizer, tokens, END)


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(rule_sets, st.sampled_from((None, 60, 100, 400)), st.integers(0, 1_000_000))
def test_every_text_of_the_bundled_tokenizer_passes_every_enforced_rule(
    verifiers: Sequence[Verifier], max_tokens: int | None, seed: int
) -> None:
    check_by_walking(bundled_walker(), verifiers, max_tokens, seed)


NO_COMMAS = {"type": "format", "kind": "no_commas"}
AGE = {"type": "object", "properties": {"age": {"type": "integer", "maximum": 99}}, "required": ["age"]}


async def write_under(service: Service, *rules: Mapping[str, Any], **request: Any) -> dict[str, Any]:
    """Draft texts under rules: the answer, of which no text may be empty."""
    sampling = {"max_tokens": 32, "temperature": 1.0, **request.pop("sampling", {})}
    search = {
        "preset": "best_of_n",
        "drafts": 1,
        "constraints": "always",
        "repairs": False,
        **request.pop("search", {}),
    }
    asked = {"prompt": "Describe the sea.", "judge": False, **request}
    response = await service.client.post(
        "/v1/refine", json={**asked, "evaluators": rules, "sampling": sampling, "search": search}
    )
    body: dict[str, Any] = response.json()
    assert response.status_code == 200, body
    assert all(candidate["text"].strip() for candidate in candidates_of(body))
    return body


def candidates_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [candidate for turn in body["rounds"] for candidate in turn["candidates"]]


def left_out(body: Mapping[str, Any]) -> dict[str, str]:
    return {each["rule"]: each["reason"] for each in body["constraints"]["left_out"]}


async def test_rules_that_contradict_each_other_are_refused_before_the_engine_works(service: Service) -> None:
    rules = [{"type": "keywords", "include": ["salt"]}, NO_COMMAS, {"type": "keywords", "exclude": ["Salt"]}]
    before = await service.engine_series()

    response = await service.client.post("/v1/refine", json={"prompt": "Describe the sea.", "evaluators": rules})

    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "invalid_request")
    assert [error["field"] for error in problem["errors"]] == ["evaluators.0", "evaluators.2"]
    name = "vllm:prompt_tokens_total"
    assert (await service.engine_series()).get(name) == before.get(name)


async def test_a_schema_is_enforced_alone_and_the_rules_beside_it_are_checked(service: Service) -> None:
    body = await write_under(
        service, {"type": "json_schema", "schema": AGE}, NO_COMMAS, {"type": "length", "unit": "words", "max": 9}
    )

    assert body["constraints"]["enforced"] == ["json_schema.schema"]
    assert set(left_out(body)) == {"format.no_commas", "length.words"}
    assert isinstance(json.loads(body["text"])["age"], int)


async def test_five_hundred_excluded_words_are_enforced(service: Service) -> None:
    words = [f"{first}{second}{third}" for first in "bcdfgklmnp" for second in "aeiou" for third in "bdgklmnprt"]
    common = ["the", "sea", "is", "a", "and", "of", "water", "blue", "vast", "it", *words]
    rules: list[Any] = [{"type": "keywords", "exclude": common[at : at + 100]} for at in range(0, 500, 100)]

    body = await write_under(service, *rules)

    assert body["constraints"]["enforced"] == ["keywords.exclude"] * 5
    whole = re.findall(r"\w+", body["text"].lower())[:-1]  # the last word may be cut
    assert not set(whole) & set(common)


async def test_a_grammar_that_is_too_large_is_left_out_by_name(service: Service) -> None:
    long = [{"type": "keywords", "exclude": [f"{at}{word}".ljust(190, "x") for word in range(100)]} for at in range(6)]

    body = await write_under(service, *long, NO_COMMAS)

    assert "format.no_commas" in body["constraints"]["enforced"]
    assert "keywords.exclude" in left_out(body)
    assert "," not in body["text"]


async def test_a_keyword_may_be_a_part_of_another(service: Service) -> None:
    rule = {"type": "keywords", "include": ["art", "party", "party hat"], "exclude": ["part", "hats"]}

    body = await write_under(service, rule, sampling={"max_tokens": 60})

    assert set(body["constraints"]["enforced"]) == {"keywords.include", "keywords.exclude"}
    assert all(c["passed"] for c in candidates_of(body) if c["finish_reason"] == "stop")


async def test_words_of_several_scripts_are_enforced_or_left_out_by_name(service: Service) -> None:
    rules: list[Any] = [
        {"type": "keywords", "exclude": ["sea", "море", "θάλασσα", "البحر", "海", "ทะเล"]},
        {"type": "keywords", "include": ["soleil", "солнце", "太阳"]},
    ]

    body = await write_under(service, *rules, sampling={"max_tokens": 60})

    named = {*body["constraints"]["enforced"], *left_out(body)}
    assert named == {"keywords.exclude", "keywords.include"}


async def test_a_stop_text_ends_a_constrained_text_before_it(service: Service) -> None:
    rules: list[Any] = [NO_COMMAS, {"type": "length", "unit": "words", "min": 12}]

    body = await write_under(service, *rules, sampling={"stop": ["sea", " "], "max_tokens": 60})

    assert body["constraints"]["enforced"] == ["format.no_commas", "length.words"]
    assert " " not in body["text"]


async def test_a_constrained_refine_can_be_streamed(service: Service) -> None:
    asked = {
        "prompt": "Describe the sea.",
        "evaluators": [NO_COMMAS],
        "judge": False,
        "search": {"preset": "best_of_n", "drafts": 2, "constraints": "always"},
        "sampling": {"max_tokens": 24},
        "stream": True,
    }
    async with service.client.stream("POST", "/v1/refine", json=asked) as response:
        lines = [line async for line in response.aiter_lines()]

    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    told = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert names.count("candidate") == 2
    assert names[-1] == "done"
    assert "," not in told[-1]["text"]


async def test_seeds_tell_constrained_siblings_apart(service: Service) -> None:
    sampling = {"seed": 2**63, "max_tokens": 16}

    body = await write_under(service, NO_COMMAS, search={"drafts": 3}, sampling=sampling)

    assert len({candidate["text"] for candidate in candidates_of(body)}) == 3


async def test_siblings_each_keep_to_the_schema(service: Service) -> None:
    asked = {"prompt": "How old is he?", "n": 6, "response_schema": AGE, "sampling": {"max_tokens": 32}}

    body = (await service.client.post("/v1/generate", json=asked)).json()

    ages = [json.loads(choice["text"])["age"] for choice in body["choices"]]
    assert len(ages) == 6
    assert all(age <= 99 for age in ages)


async def test_a_client_that_leaves_in_the_middle_of_a_mask_leaves_nothing_behind(service: Service) -> None:
    rules: list[Any] = [{"type": "length", "unit": "sentences", "min": 9}, {"type": "keywords", "exclude": ["sea"]}]
    leaving = asyncio.ensure_future(write_under(service, *rules, sampling={"max_tokens": 400}))
    while not service.unfinished():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)

    leaving.cancel()

    async with asyncio.timeout(20):
        while service.unfinished() or await service.in_flight():
            await asyncio.sleep(0.02)
    body = await write_under(service, NO_COMMAS, sampling={"max_tokens": 16})
    assert "," not in body["text"]
