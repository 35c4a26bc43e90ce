"""How an exam knows that engine and trainer mean the same model."""

import json
from pathlib import Path

import pytest

from service.engines.base import Weigh
from service.engines.conversation import Conversation
from service.engines.scripted import Script, ScriptedEngine
from service.learning.exam import agree
from service.learning.paper import ExamFailed
from service.learning.prompts import Prompt
from tests.learning import made

PROMPT_IDS = [3, 1, 4]


class Reads:
    def prompt_ids(self, conversation: Conversation, prefill: str = "", *, thinking: bool = True) -> list[int]:
        return PROMPT_IDS


def prefer_another(weigh: Weigh, token: str, logprob: float) -> tuple[str, float]:
    """Of ``tide`` the engine thinks otherwise; of the other words it only rounds otherwise."""
    return "another", logprob + (2.0 if "tide" in token else 0.25)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(Script(rival=prefer_another))


@pytest.fixture
def prompts() -> list[Prompt]:
    return [made.prompt()]


def left(folder: Path, *texts: str, prompt: list[int] = PROMPT_IDS) -> Path:
    greedy = folder / "greedy.json"
    greedy.write_text(json.dumps([{"prompt": prompt, "text": text} for text in texts]))
    return greedy


async def test_only_a_clear_preference_is_a_disagreement(
    engine: ScriptedEngine, prompts: list[Prompt], tmp_path: Path
) -> None:
    greedy = left(tmp_path, "the tide is low", "a calm sea here")
    assert await agree(engine, greedy, Reads(), prompts) == pytest.approx(7 / 8)


@pytest.mark.parametrize("texts", [(), ("",)])
async def test_without_a_text_nothing_is_known(
    engine: ScriptedEngine, prompts: list[Prompt], tmp_path: Path, texts: tuple[str, ...]
) -> None:
    assert await agree(engine, left(tmp_path, *texts), Reads(), prompts) is None
    assert await agree(engine, tmp_path / "missing.json", Reads(), prompts) is None


async def test_prompts_that_the_engine_gives_other_tokens_are_no_agreement(
    engine: ScriptedEngine, prompts: list[Prompt], tmp_path: Path
) -> None:
    assert await agree(engine, left(tmp_path, "the tide", prompt=[2, 7]), Reads(), prompts) == 0.0


async def test_a_damaged_file_is_named(engine: ScriptedEngine, prompts: list[Prompt], tmp_path: Path) -> None:
    greedy = tmp_path / "greedy.json"
    greedy.write_text('[{"prompt": [3, 1, 4]}]')
    with pytest.raises(ExamFailed, match=r"greedy\.json is damaged"):
        await agree(engine, greedy, Reads(), prompts)
