"""The benchmark's prompts are proven: each has a text that passes all of its verifiers, and other texts fail."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from bench.quality.prompts import BenchPrompt, StatedVerifier, load_prompts
from service.engines.conversation import Conversation, Turn
from service.engines.scripted import ScriptedEngine
from service.evaluators.base import EvaluatorSpec, Submission
from service.evaluators.catalogue import AnyEvaluator
from service.evaluators.code.sandbox import Sandbox
from service.evaluators.toolbox import Toolbox
from service.refinement.steps import CachedJudgePrompt
from service.tasks.task import load_tasks
from service.wire.requests import RefineRequest

PROMPTS = load_prompts()
TASKS = load_tasks()
STATED: TypeAdapter[EvaluatorSpec] = TypeAdapter(AnyEvaluator)
LINE: Mapping[str, Any] = {
    "id": "general-001",
    "task": "general",
    "prompt": "Say hello.",
    "evaluators": [{"type": "starts_with", "text": "Hello"}],
    "max_tokens": 20,
    "solution": "Hello!",
}


@pytest.fixture(scope="module")
def tools() -> Toolbox:
    return Toolbox(asyncio.run(Sandbox.find()))


async def passes(text: str, stated: StatedVerifier, tools: Toolbox) -> bool:
    verifier = STATED.validate_json(json.dumps(stated)).resolve(tools)
    assert verifier.authority == "verifier"
    request = Conversation(Turn("user", "…"))
    prompt = CachedJudgePrompt(TASKS["general"].prompts)
    submission = Submission(text=text, request=request, shown=request, judge_prompt=prompt, engine=ScriptedEngine())
    evaluation = await verifier.evaluate(submission)
    assert evaluation.error is None
    return evaluation.passed is True


async def first_failed(text: str, prompt: BenchPrompt, tools: Toolbox) -> StatedVerifier | None:
    verifiers = [*prompt.evaluators, *prompt.hidden]
    if tools.find(Sandbox) is None and any(verifier["type"] == "code_tests" for verifier in verifiers):
        pytest.skip("there is no sandbox on this machine")
    for verifier in verifiers:
        if not await passes(text, verifier, tools):
            return verifier
    return None


each_prompt = pytest.mark.parametrize("prompt", PROMPTS, ids=[prompt.id for prompt in PROMPTS])


@each_prompt
async def test_the_solution_passes_every_verifier(prompt: BenchPrompt, tools: Toolbox) -> None:
    assert await first_failed(prompt.solution, prompt, tools) is None


@each_prompt
async def test_a_blank_text_and_the_solution_of_another_prompt_fail(prompt: BenchPrompt, tools: Toolbox) -> None:
    siblings = [other for other in PROMPTS if other.task == prompt.task]
    neighbour = siblings[siblings.index(prompt) - 1] if prompt is not siblings[0] else siblings[1]
    assert await first_failed("", prompt, tools)
    assert await first_failed(neighbour.solution, prompt, tools)


@each_prompt
def test_the_service_takes_the_request(prompt: BenchPrompt) -> None:
    task = TASKS[prompt.task]
    request = RefineRequest.model_validate_json(json.dumps(prompt.request()))
    assert request.parameters.keys() <= task.parameters.keys()
    assert len(request.evaluators) == len(prompt.evaluators)
    if task.sampling.choices:
        assert prompt.solution in task.sampling.choices


def test_ids_and_texts_are_unique() -> None:
    assert len({prompt.id for prompt in PROMPTS}) == len(PROMPTS)
    assert len({(prompt.prompt, prompt.messages) for prompt in PROMPTS}) == len(PROMPTS)


def test_an_id_is_the_task_and_a_number() -> None:
    count: Counter[str] = Counter()
    for prompt in PROMPTS:
        count[prompt.task] += 1
        assert prompt.id == f"{prompt.task}-{count[prompt.task]:03}"


def test_there_are_enough_of_each_kind() -> None:
    assert {prompt.task for prompt in PROMPTS} == TASKS.keys()
    assert len(PROMPTS) >= 240
    assert sum(len(prompt.hidden) == 1 for prompt in PROMPTS) >= 80
    assert sum(2 <= len(prompt.evaluators) + len(prompt.hidden) <= 4 for prompt in PROMPTS) >= 100


def test_at_most_one_rule_is_hidden_and_never_the_only_one() -> None:
    assert all(len(prompt.hidden) <= 1 <= len(prompt.evaluators) for prompt in PROMPTS)


def test_the_service_sees_neither_the_hidden_rule_nor_the_solution() -> None:
    [prompt] = [prompt for prompt in PROMPTS if prompt.id == "general-005"]
    body = prompt.request()
    assert body.keys() == {"task", "prompt", "parameters", "evaluators", "sampling"}
    assert body["evaluators"] == list(prompt.evaluators)


@pytest.mark.parametrize(
    "change",
    [
        {"level": "easy"},
        {"max_tokens": "20"},
        {"max_tokens": 500},
        {"evaluators": []},
        {"solution": ""},
        {"prompt": None},
        {"messages": [{"role": "user", "content": "Say hello."}]},
        {"prompt": None, "messages": [{"role": "owl", "content": "Say hello."}]},
    ],
)
def test_a_line_that_is_no_prompt_is_refused(change: Mapping[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "general.jsonl"
    file.write_text(json.dumps(LINE) + "\n")
    assert [prompt.prompt for prompt in load_prompts(tmp_path)] == ["Say hello."]
    file.write_text(json.dumps({**LINE, **change}) + "\n")
    with pytest.raises(ValidationError):
        load_prompts(tmp_path)
