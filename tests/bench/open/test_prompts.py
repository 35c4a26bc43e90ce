"""The open requests are ones that the service takes, and their keys tell right answers from wrong ones."""

import asyncio
import json
from collections import Counter

import pytest

from bench.open.arms import ARMS
from bench.open.prompts import OpenPrompt, load_prompts
from service.evaluators.code.sandbox import Sandbox
from service.evaluators.toolbox import Toolbox
from service.programs.compile import Programs, RequestLimits
from service.programs.models import ServedModels
from service.tasks.task import load_tasks
from service.wire.requests import RefineRequest
from tests.bench.quality.test_prompts import passes

PROMPTS = load_prompts()
PROGRAMS = Programs(load_tasks(), RequestLimits(8, 8, 4096, 600.0), ServedModels(("model",)))


@pytest.fixture(scope="module")
def tools() -> Toolbox:
    return Toolbox(asyncio.run(Sandbox.find()))


each_prompt = pytest.mark.parametrize("prompt", PROMPTS, ids=[prompt.id for prompt in PROMPTS])


@each_prompt
async def test_the_solution_passes_the_key_and_the_prompt_itself_does_not(prompt: OpenPrompt, tools: Toolbox) -> None:
    if tools.find(Sandbox) is None and prompt.task == "code":
        pytest.skip("there is no sandbox on this machine")

    assert all([await passes(prompt.solution, key, tools) for key in prompt.key])
    assert not all([await passes("I do not know.", key, tools) for key in prompt.key])


@pytest.mark.parametrize("arm", ARMS)
async def test_the_service_takes_every_prompt_by_every_arm(arm: str) -> None:
    for prompt in PROMPTS:
        request = {**prompt.request(), **ARMS[arm], "budget": {"tokens": 3_000}}

        program = PROGRAMS.compile_refine(RefineRequest.model_validate_json(json.dumps(request)))

        assert program.task == prompt.task


def test_prompts_and_ids_are_unique() -> None:
    counted = Counter(text for prompt in PROMPTS for text in {prompt.id, prompt.prompt})

    assert set(counted.values()) == {1}
