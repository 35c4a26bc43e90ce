"""What a service says and does that knows how far its judge is to be trusted."""

from importlib.resources import files
from pathlib import Path

import pytest

from service.app import create_app
from service.calibration.identity import judge_digest
from service.calibration.measurement import ScoredPair, measure
from service.calibration.store import CalibrationError, save
from service.settings import Settings
from service.tasks.task import load_tasks
from tests.support.serving import Served, serving

PROMPT = {"prompt": "Write about the sea."}
UNTRUSTED = {"level": "none", "share": 0.5, "source": "calibrated"}
GENERAL = files("service.tasks").joinpath("general.toml").read_text()
UNKNOWN = {"level": "drive", "share": None, "source": "unknown"}


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    """A calibration of the scripted engine, which ranks half of the pairs rightly."""
    scored = [ScoredPair(0.6, 0.5), ScoredPair(0.5, 0.6)] * 30
    judge = judge_digest("scripted", load_tasks()["general"])
    path = tmp_path / "judge.json"
    save(measure(scored, judge=judge, model="scripted", source="calibrated"), path)
    return path


@pytest.fixture(autouse=True)
def _cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


async def known(served: Served) -> None:
    """Return once the service has looked for what is known of its judge."""
    while (await served.client.get("/v1/models/scripted")).json()["judge_digest"] is None:
        pass


async def test_an_answer_says_how_far_its_judge_is_trusted(calibration: Path) -> None:
    async with serving(calibration=calibration) as served:
        await known(served)
        refined = (await served.post("/v1/refine", PROMPT)).json()
        critique = (await served.post("/v1/critique", {**PROMPT, "candidate": "Waves."})).json()
        [started, *_] = await served.stream("/v1/refine", PROMPT)
        chat = {"model": "scripted:refine", "messages": [{"role": "user", "content": "Write about the sea."}]}
        completion = (await served.post("/v1/chat/completions", chat)).json()

    assert refined["judge_trust"] == critique["judge_trust"] == UNTRUSTED
    assert started[0] == "started"
    assert started[1]["judge_trust"] == completion["redraft"]["judge_trust"] == UNTRUSTED


async def test_no_tokens_are_spent_on_critiques_for_the_sake_of_an_untrusted_judge(calibration: Path) -> None:
    async with serving(calibration=calibration) as served:
        await known(served)
        refined = (await served.post("/v1/refine", PROMPT)).json()
        insisting = {**PROMPT, "search": {"critic": "model", "rounds": 1}}
        insisted = (await served.post("/v1/refine", insisting)).json()

    assert (refined["stop_reason"], refined["text"], len(refined["rounds"])) == ("untrusted", "Waves.", 1)
    assert refined["usage"]["by_role"]["critique"]["calls"] == 0
    assert insisted["usage"]["by_role"]["critique"]["calls"] == 2
    assert (insisted["stop_reason"], insisted["improved"]) == ("rounds", False)


async def test_a_critic_that_is_not_trusted_as_a_judge_does_not_answer_the_request_first(calibration: Path) -> None:
    asked = {**PROMPT, "candidate": "Sand.", "judge": False}
    async with serving() as served:
        compared = (await served.post("/v1/critique", asked)).json()
    async with serving(calibration=calibration) as served:
        await known(served)
        alone = (await served.post("/v1/critique", asked)).json()

    assert (compared["usage"]["calls"], alone["usage"]["calls"]) == (6, 3)
    assert alone["remarks"]


async def test_what_verifiers_find_is_revised_under_an_untrusted_judge(calibration: Path) -> None:
    salt = {**PROMPT, "evaluators": [{"type": "keywords", "include": ["salt"]}]}
    async with serving(calibration=calibration) as served:
        await known(served)
        refined = (await served.post("/v1/refine", salt)).json()

    assert (refined["text"], refined["passed"], refined["stop_reason"]) == ("Salt waves.", True, "untrusted")


async def test_the_list_of_models_and_the_metrics_show_it(calibration: Path) -> None:
    async with serving(calibration=calibration) as served:
        await known(served)
        models = (await served.client.get("/v1/models")).json()["data"]
        page = (await served.client.get("/metrics")).text

    assert {model["id"].partition(":")[0] for model in models} == {"scripted"}
    assert all(model["judge_trust"] == UNTRUSTED for model in models)
    assert 'redraft_judge_trust{level="none",model="scripted"} 1.0' in page
    assert 'redraft_judge_trust{level="drive",model="scripted"} 0.0' in page
    assert 'redraft_judge_share{model="scripted"} 0.5' in page


async def test_a_judge_of_which_nothing_is_known_drives_the_loop(served: Served) -> None:
    await known(served)

    refined = (await served.post("/v1/refine", {**PROMPT, "search": {"rounds": 1}})).json()

    assert refined["judge_trust"] == UNKNOWN
    assert refined["usage"]["by_role"]["critique"]["calls"] == 2
    assert "redraft_judge_trust{" not in (await served.client.get("/metrics")).text


async def test_a_calibration_of_another_judge_is_left_out(calibration: Path, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "general.toml").write_text(GENERAL.replace('Answer Yes or No."""\n# Only', 'Yes or No?"""\n# Only'))
    async with serving(calibration=calibration, tasks_dir=tasks) as served:
        await known(served)
        assert (await served.post("/v1/refine", PROMPT)).json()["judge_trust"] == UNKNOWN


def test_a_calibration_that_cannot_be_read_keeps_the_service_from_starting(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="cannot be read: No such file"):
        create_app(Settings(engine="scripted", calibration=tmp_path / "missing.json"))


async def test_a_judge_may_be_asked_with_its_answers_in_both_orders(calibration: Path) -> None:
    asked = {**PROMPT, "candidate": "Waves.", "feedback": False}
    async with serving(judge_both_directions=True, calibration=calibration) as served:
        await known(served)
        critique = (await served.post("/v1/critique", asked)).json()

    [evaluation] = critique["evaluations"]
    assert critique["usage"]["calls"] == 2 * len(evaluation["criteria"]) + 1
    assert critique["judge_trust"] == UNKNOWN  # the calibration is of a judge that was asked once
