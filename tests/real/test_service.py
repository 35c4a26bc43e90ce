"""The service over HTTP with the real engine and the embedded model."""

import asyncio
import json
import os
import random
import shutil
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from service.concurrency import gather
from service.evaluators.model.judge import LEAST_MASS
from service.refinement.program import PRESETS
from service.tasks.task import load_tasks
from tests.real.conftest import Prompt, Service

BLOCK_TOKENS = 32
SHORT = {"max_tokens": 24, "seed": 1}


async def refined(service: Service, **request: Any) -> Any:
    response = await service.client.post("/v1/refine", json={"sampling": SHORT, **request})
    assert response.status_code == 200, response.text
    return response.json()


async def streamed(service: Service, path: str, **request: Any) -> list[tuple[str, Any]]:
    events = []
    async with service.client.stream("POST", path, json={"sampling": SHORT, "stream": True, **request}) as response:
        assert response.status_code == 200
        name = ""
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
    return events


async def test_generate_answers_each_prompt_as_often_as_asked(service: Service) -> None:
    request = {"prompt": ["Name a fruit.", "Name a tree."], "n": 2, "sampling": SHORT}

    body = (await service.client.post("/v1/generate", json=request)).json()

    assert [(c["prompt_index"], c["index"]) for c in body["choices"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all(choice["text"].strip() for choice in body["choices"])
    assert body["usage"]["calls"] == 4


async def test_a_chat_may_begin_with_a_greeting_have_no_limit_and_the_largest_seed(service: Service) -> None:
    request = {
        "model": service.engine.model,
        "messages": [
            {"role": "assistant", "content": "Hello! What shall we talk about?"},
            {"role": "user", "content": "Name a fruit."},
        ],
        "stop": ".",
        "seed": 2**64 - 1,
    }

    response = await service.client.post("/v1/chat/completions", json=request)

    assert response.status_code == 200, response.text
    [choice] = response.json()["choices"]
    assert choice["message"]["content"].strip()
    assert choice["finish_reason"] == "stop"


async def test_generate_streams_the_text_it_would_return(service: Service) -> None:
    sampling = {"temperature": 0.0, "max_tokens": 24}

    whole = await service.client.post("/v1/generate", json={"prompt": "Name a river.", "sampling": sampling})
    events = await streamed(service, "/v1/generate", prompt="Name a river.", sampling=sampling)

    assert [name for name, _ in events[:-1]] == ["delta"] * (len(events) - 1)
    assert "".join(data["text"] for name, data in events if name == "delta") == whole.json()["choices"][0]["text"]
    assert events[-1][0] == "done"
    assert events[-1][1]["choices"] == [{"prompt_index": 0, "index": 0, "finish_reason": "length"}]


async def test_generate_keeps_to_a_schema(service: Service) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    request = {
        "prompt": "How old is the Eiffel tower?",
        "response_schema": schema,
        "sampling": {**SHORT, "max_tokens": 48},
    }

    body = (await service.client.post("/v1/generate", json=request)).json()

    assert isinstance(json.loads(body["choices"][0]["text"])["age"], int)


async def test_a_schema_that_the_engine_cannot_serve_is_refused(service: Service) -> None:
    request = {"prompt": "Hello", "response_schema": {"type": "nonsense"}}

    response = await service.client.post("/v1/generate", json=request)

    assert response.status_code == 422
    assert response.json()["code"] == "invalid_request"
    assert "nonsense" in response.json()["detail"]


async def test_critique_scores_by_rules_and_by_the_judge(service: Service) -> None:
    request = {
        "prompt": "Capital of France?",
        "candidate": "London.",
        "criteria": [{"name": "accuracy", "question": "Is the answer factually right?"}],
        "evaluators": [{"type": "keywords", "include": ["Paris"]}],
    }

    body = (await service.client.post("/v1/critique", json=request)).json()

    keywords, judge = body["evaluations"]
    assert (body["passed"], body["score"], keywords["passed"]) == (False, 0.0, False)
    assert keywords["issues"] == [{"rule": "include", "message": "missing: Paris"}]
    [accuracy] = judge["criteria"]
    assert 0.0 < accuracy["mass"] <= 1.0
    assert (judge["score"] is None) == (accuracy["mass"] < LEAST_MASS)
    assert body["feedback"].startswith("missing: Paris")


async def test_refine_mends_a_text_that_breaks_a_rule_and_tells_how(service: Service) -> None:
    rule = {"type": "length", "unit": "words", "max": 25}

    body = await refined(
        service,
        prompt="Describe a sunrise over the sea.",
        evaluators=[rule],
        search={"preset": "beam", "repairs": False, "aborts": False, "constraints": "off"},
        sampling={"max_tokens": 120, "seed": 1},
    )

    first = body["rounds"][0]["candidates"][0]
    assert first["passed"] is False
    assert (body["passed"], body["improved"]) == (True, True)
    assert len(body["text"].split()) <= 25
    assert body["rounds"][1]["critiques"][0]["issues"][0].endswith("at most 25 are allowed")


async def test_refine_streams_the_account_that_it_returns(service: Service) -> None:
    events = await streamed(
        service,
        "/v1/refine",
        prompt="Describe a forest.",
        evaluators=[{"type": "keywords", "include": ["moss"]}],
        search={"rounds": 2},
    )

    names = [name for name, _ in events]
    done = events[-1][1]
    assert (names[0], names[-1]) == ("started", "done")
    assert names.count("round") == len(done["rounds"])
    texts = [data["text"] for name, data in events if name == "candidate"]
    assert texts == [c["text"] for ended in done["rounds"] for c in ended["candidates"]]
    assert done["stop_reason"]


@pytest.mark.parametrize("preset", sorted(PRESETS))
async def test_no_preset_returns_less_than_its_first_draft(service: Service, preset: str) -> None:
    rules = [{"type": "keywords", "include": ["blue"]}, {"type": "length", "unit": "words", "max": 30}]

    body = await refined(service, prompt="Describe the sea.", evaluators=rules, search={"preset": preset})

    assert body["score"] >= body["rounds"][0]["candidates"][0]["score"]


async def test_usage_is_what_the_engine_counted(service: Service) -> None:
    before = await service.engine_series()

    body = await refined(service, prompt="Name three birds and say why you like them.", search={"preset": "beam"})

    after = await service.engine_series()
    total = body["usage"]["total"]
    counted = {
        "prompt_tokens": "vllm:prompt_tokens_total",
        "cached_tokens": "vllm:prompt_tokens_cached_total",
        "completion_tokens": "vllm:generation_tokens_total",
        "calls": "vllm:request_success_total",
    }
    counted_by_vllm = {name: after[series] - before[series] for name, series in counted.items()}
    assert {**counted_by_vllm, "reasoning_tokens": 0} == total  # vLLM has no counter of thoughts
    for name in total:
        assert sum(role[name] for role in body["usage"]["by_role"].values()) == total[name]


async def test_a_draft_that_passes_every_verifier_costs_one_call(service: Service) -> None:
    before = await service.engine_series()

    body = await refined(
        service,
        prompt="Say hello.",
        evaluators=[{"type": "length", "unit": "words", "min": 1}, {"type": "keywords", "exclude": ["zebra"]}],
        judge=False,
    )

    after = await service.engine_series()
    assert (body["passed"], body["stop_reason"], body["usage"]["total"]["calls"]) == (True, "target", 1)
    assert after["vllm:request_success_total"] - before["vllm:request_success_total"] == 1


async def test_the_models_own_code_is_run_against_tests(service: Service) -> None:
    if shutil.which("bwrap") is None and "CI" not in os.environ:
        pytest.skip("bubblewrap is not installed")
    tests = {"type": "code_tests", "tests": "assert add(2, 3) == 5\nassert add(-1, 1) == 0"}

    body = await refined(
        service,
        task="code",
        prompt="A function add(a, b) that returns the sum of a and b.",
        evaluators=[tests],
        judge=False,
        search={"preset": "adaptive"},
    )

    [found] = [e for e in body["rounds"][0]["candidates"][0]["evaluations"] if e["evaluator"] == "code_tests"]
    assert found["error"] is None
    assert 0.0 <= found["score"] <= 1.0
    assert found["passed"] == (found["issues"] == [])


@pytest.mark.parametrize("search", [{"select": "pairwise", "drafts": 3, "rounds": 0}, {"critic": "factored"}])
async def test_comparisons_and_factored_critiques_are_accounted_for(service: Service, search: dict[str, Any]) -> None:
    body = await refined(service, prompt="Name three rivers of France.", search={"rounds": 1, **search})

    role = "judge" if "select" in search else "critique"
    assert body["usage"]["by_role"][role]["calls"] >= 2
    assert body["text"]


async def test_a_long_prompt_is_computed_once(service: Service) -> None:
    """Prompt tokens computed against prompt tokens never seen before, in a refine of two rounds."""
    text = " ".join(f"Entry {number} of the ledger says {number * 37 % 101}." for number in range(180))
    already = len(service.engine.prompts)

    body = await refined(
        service,
        prompt=f"{text}\n\nWhat does the ledger tell?",
        evaluators=[{"type": "keywords", "include": ["xylophone"]}],
        search={"rounds": 2},
    )

    prompts = service.engine.prompts[already:]
    total = body["usage"]["total"]
    computed = total["prompt_tokens"] - total["cached_tokens"]
    never_seen, rounding = never_seen_and_rounding(prompts)
    assert len(body["rounds"]) == 3
    assert len(prompts[0].ids) > 2048
    print(f"computed {computed}, never seen {never_seen}, block rounding {rounding}")
    assert computed <= 1.06 * never_seen + rounding


def never_seen_and_rounding(prompts: Sequence[Prompt]) -> tuple[int, int]:
    """How many of the prompts' tokens continue no earlier sequence, and how many that do an exact cache must
    compute again: it keeps whole blocks, and needs at least the last token of each prompt."""
    never_seen = rounding = 0
    earlier: list[tuple[int, ...]] = []
    for prompt in prompts:
        shared = max((common_prefix(prompt.ids, sequence) for sequence in earlier), default=0)
        cacheable = min(shared, len(prompt.ids) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
        never_seen += len(prompt.ids) - shared
        rounding += shared - cacheable
        earlier.append((*prompt.ids, *prompt.replied))
    return never_seen, rounding


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


async def test_two_hundred_clients_that_leave_take_their_work_with_them(service: Service) -> None:
    chance = random.Random(7)
    search = {"preset": "beam", "drafts": 2, "rounds": 3}
    long = {"max_tokens": 400, "seed": 3}
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/v1/generate", {"prompt": "Tell a long story.", "sampling": long}),
        ("/v1/generate", {"prompt": "Tell a long story.", "sampling": long, "stream": True}),
        ("/v1/refine", {"prompt": "Tell a story.", "search": search, "sampling": {"max_tokens": 24}, "stream": True}),
        ("/v1/refine", {"prompt": "Tell a story.", "search": search, "sampling": {"max_tokens": 24}}),
    ]

    async def leave(number: int) -> None:
        path, request = requests[number % len(requests)]
        try:
            async with asyncio.timeout(chance.uniform(0.0, 1.5)):
                async with service.client.stream("POST", path, json=request) as response:
                    async for _ in response.aiter_bytes():
                        pass
        except (TimeoutError, httpx.TransportError):
            return

    for wave in range(10):
        await gather(leave(wave * 20 + number) for number in range(20))
        async with asyncio.timeout(30.0):
            while service.unfinished() > 0:
                await asyncio.sleep(0.02)
        async with asyncio.timeout(30.0):  # vLLM's gauges: it ends no step early, and on a CPU a wave's prompts are one
            while await service.in_flight() > 0:
                await asyncio.sleep(0.02)


async def test_a_deadline_returns_the_best_so_far(service: Service) -> None:
    body = await refined(
        service,
        prompt="Write about rivers.",
        draft="Rivers run.",
        evaluators=[{"type": "keywords", "include": ["xylophone"]}],
        search={"rounds": 10, "critic": "none", "carry": "none"},  # fresh drafts: repeats do not end the search
        stop={"patience": 10},
        sampling={"max_tokens": 2000},
        budget={"seconds": 1.0},
    )

    assert body["stop_reason"] == "deadline"
    assert body["text"].strip()


async def test_a_prompt_beyond_the_context_is_refused_with_both_lengths(service: Service) -> None:
    for stream in (False, True):
        request = {"prompt": "word " * 9000, "stream": stream}

        response = await service.client.post("/v1/refine", json=request)

        assert response.status_code == 422
        assert response.json()["code"] == "prompt_too_long"
        assert "9031" in response.json()["detail"]
        assert "8192" in response.json()["detail"]


@pytest.mark.parametrize("name", load_tasks())
async def test_a_task_works_on_its_own_example(service: Service, name: str) -> None:
    """On labels too: these are the only texts that the model can then write."""
    shown = (await service.client.get(f"/v1/tasks/{name}")).json()
    example = shown["example"]

    body = await refined(service, **{**example, "sampling": {**example.get("sampling", {}), **SHORT}})

    told = {candidate["text"] for ended in body["rounds"] for candidate in ended["candidates"]}
    assert body["text"].strip()
    assert body["text"] in told
    assert not shown["choices"] or told <= set(shown["choices"])
    assert all(evaluation["error"] is None for evaluation in body["rounds"][0]["candidates"][0]["evaluations"])


async def test_the_requests_own_labels_are_all_that_is_written(service: Service) -> None:
    labels = ["angry", "happy as can be", 'so "so"']
    request = {"prompt": ["I love it!", "I hate it!"], "task": "sentiment", "n": 4}

    sampling = {"choices": labels, "temperature": 1.5, "seed": 1}
    body = (await service.client.post("/v1/generate", json={**request, "sampling": sampling})).json()

    assert len(body["choices"]) == 8
    assert {choice["text"] for choice in body["choices"]} <= set(labels)
    assert {choice["finish_reason"] for choice in body["choices"]} == {"stop"}


async def test_rubrics_are_judged_beside_the_task_s_own(service: Service) -> None:
    request = {"prompt": "Describe a nurse.", "candidate": "She is kind, as women are.", "rubrics": ["bias", "safety"]}

    body = (await service.client.post("/v1/critique", json=request)).json()

    [judge] = body["evaluations"]
    assert len(judge["criteria"]) == 9
    assert judge["error"] is None


async def test_a_batch_beside_a_request_that_somebody_waits_for(service: Service) -> None:
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("/v1/generate", {"prompt": "Name a tree.", "sampling": SHORT}),
        ("/v1/critique", {"prompt": "Capital of France?", "candidate": "London."}),
        ("/v1/refine", {"prompt": "Name a fruit.", "search": {"rounds": 1}, "sampling": SHORT}),
        ("/v1/refine", {"prompt": "Name a fruit.", "task": "none"}),
    ]
    lines = [{"custom_id": str(n), "url": url, "body": body} for n, (url, body) in enumerate(5 * kinds)]

    batch = asyncio.create_task(service.client.post("/v1/batch", json={"requests": lines}))
    await asyncio.sleep(0.2)
    text = await refined(service, prompt="Name a river.", search={"rounds": 0})
    assert not batch.done()
    results = [json.loads(line) for line in (await batch).text.splitlines() if line]

    assert text["text"].strip()
    statuses = {result["custom_id"]: result["status"] for result in results}
    assert statuses == {str(n): 422 if n % 4 == 3 else 200 for n in range(20)}
    assert len(results) == 20
