"""Task files: the built-in ones, a user's own, broken ones; and whose settings win."""

import asyncio
import json
from pathlib import Path

import pytest

from service.api.programs import Bounds, Programs
from service.api.requests import RefineRequest
from service.engines.base import Sampling
from service.evaluators.rules import Length
from service.refinement.program import PRESETS, Search, Stop
from service.tasks.overrides import SamplingOverrides, SearchOverrides, StopOverrides
from service.tasks.task import TaskError, load_tasks

BUILT_IN = ["code", "general", "summarize", "translate"]
SMALLEST = """
description = "A haiku."
[example]
prompt = "The sea."
"""


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_the_built_in_tasks_are_there() -> None:
    assert list(load_tasks()) == BUILT_IN


@pytest.mark.parametrize("name", BUILT_IN)
async def test_the_example_of_a_built_in_task_is_a_request_that_works(name: str) -> None:
    tasks = load_tasks()
    programs = Programs(tasks, Bounds(candidates=16, rounds=10, tokens=4096, seconds=600.0), "model")
    request = json.dumps({"task": name, **tasks[name].example})

    made = programs.program(RefineRequest.model_validate_json(request))

    assert made.task == name
    assert tasks[name].example["prompt"] in made.request.turn.text


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_task_has_a_rubric_and_limits(name: str) -> None:
    task = load_tasks()[name]

    assert task.name == name
    assert task.description
    assert len({criterion.name for criterion in task.criteria}) == len(task.criteria) >= 3
    assert task.sampling.max_tokens <= 512
    assert task.principles


def test_a_file_of_a_users_folder_adds_a_task_that_takes_the_rest_from_general(tmp_path: Path) -> None:
    tasks = load_tasks(write(tmp_path, "haiku.toml", SMALLEST))

    haiku, general = tasks["haiku"], tasks["general"]
    assert list(tasks) == sorted([*BUILT_IN, "haiku"])
    assert haiku.description == "A haiku."
    assert (haiku.criteria, haiku.principles) == (general.criteria, general.principles)
    assert haiku.prompts.render("draft", prompt="The sea.", parameters={}) == "The sea."
    assert (haiku.sampling, haiku.search, haiku.stop) == (Sampling(), Search(), Stop())
    assert (haiku.parameters, haiku.evaluators) == ({}, ())


def test_a_file_of_a_users_folder_replaces_the_built_in_task_of_its_name(tmp_path: Path) -> None:
    tasks = load_tasks(write(tmp_path, "general.toml", SMALLEST))

    assert list(tasks) == BUILT_IN
    assert tasks["general"].description == "A haiku."
    # What tasks leave out is still the built-in general's.
    assert tasks["general"].criteria == load_tasks()["general"].criteria
    assert tasks["code"].description == load_tasks()["code"].description


def test_other_files_of_a_users_folder_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "README.md", "not a task")
    write(tmp_path, "notes.toml.bak", "not a task")

    assert list(load_tasks(tmp_path)) == BUILT_IN


def test_a_task_file_may_state_everything(tmp_path: Path) -> None:
    text = """
    description = "A haiku."
    principles = ["Be still."]
    [parameters.season]
    description = "The season."
    [parameters.mood]
    description = "The mood."
    default = "calm"
    [prompts]
    draft = "A {{ parameters.mood }} haiku of {{ parameters.season }}: {{ prompt }}"
    [[criteria]]
    name = "stillness"
    question = "Is it still?"
    weight = 3
    [[evaluators]]
    type = "length"
    unit = "lines"
    min = 3
    max = 3
    [defaults.sampling]
    temperature = 1.0
    stop = ["END"]
    [defaults.search]
    preset = "beam"
    rounds = 1
    [defaults.stop]
    target = 0.9
    [example]
    prompt = "The sea."
    parameters = {season = "winter"}
    """
    task = load_tasks(write(tmp_path, "haiku.toml", text))["haiku"]

    parameters = {"season": "winter", "mood": "calm"}
    assert task.prompts.render("draft", prompt="Sea.", parameters=parameters) == "A calm haiku of winter: Sea."
    assert [(line.name, line.weight) for line in task.criteria] == [("stillness", 3.0)]
    assert task.evaluators == (Length(unit="lines", min=3, max=3),)
    assert task.principles == ("Be still.",)
    assert task.parameters["season"].default is None
    assert task.parameters["mood"].default == "calm"
    assert task.sampling == Sampling(temperature=1.0, stop=("END",))
    assert task.search == Search(drafts=4, beam=2, branches=2, rounds=1)
    assert task.stop == Stop(target=0.9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("description = ", "Invalid value", id="no TOML"),
        pytest.param("[example]\nprompt = 'x'", "description: Field required", id="no description"),
        pytest.param("description = ''\n[example]\nprompt = 'x'", "description:", id="an empty description"),
        pytest.param("description = 'x'", "example: Field required", id="no example"),
        pytest.param(f"surprise = 1\n{SMALLEST}", "surprise:", id="an unknown key"),
        pytest.param(f"{SMALLEST}\n[parameters.x]\ndefault = 'y'", "parameters.x.description", id="half a parameter"),
        pytest.param(f"{SMALLEST}\n[[criteria]]\nname = 'x'", "criteria.0.question", id="half a criterion"),
        pytest.param(f"{SMALLEST}\n[[evaluators]]\ntype = 'magic'", "evaluators.0", id="an unknown evaluator"),
        pytest.param(f"{SMALLEST}\n[[evaluators]]\ntype = 'length'\nunit = 'words'", "min or max", id="a bad rule"),
        pytest.param(f"{SMALLEST}\n[defaults.search]\npreset = 'magic'", "defaults.search.preset", id="a bad preset"),
        pytest.param(f"{SMALLEST}\n[defaults.sampling]\ntemperature = 9", "temperature", id="a bad default"),
        pytest.param(f"{SMALLEST}\n[prompts]\ngreeting = 'x'", "greeting", id="an unknown prompt"),
        pytest.param(f"{SMALLEST}\n[prompts]\ndraft = '{{% if %}}'", "does not compile", id="a prompt, no Jinja"),
        pytest.param(f"{SMALLEST}\n[prompts]\ndraft = '{{{{ x }}}}'", "'draft'", id="an unknown variable"),
        pytest.param(f"{SMALLEST}\nwhen = 2024-01-01", "JSON", id="a date"),
        pytest.param(
            f"{SMALLEST}\n[prompts]\ndraft = '{{{{ parameters.mood }}}}'",
            "mood",
            id="an undeclared parameter",
        ),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong_in_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TaskError) as refused:
        load_tasks(write(tmp_path, "haiku.toml", text))

    assert str(refused.value).startswith("haiku.toml: ")
    assert said in str(refused.value)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "haiku.toml").write_bytes(b"description = '\xff\xfe'")

    with pytest.raises(TaskError, match=r"^haiku\.toml"):
        load_tasks(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="nowhere is not a folder"):
        load_tasks(tmp_path / "nowhere")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_replaces_the_whole_search_and_a_field_beside_it_wins(preset: str) -> None:
    task = Search(drafts=9, beam=9, branches=9, rounds=9, carry="last", memory=9, critic="none", select="vote")

    alone = SearchOverrides.model_validate({"preset": preset}).applied_to(task)
    beside = SearchOverrides.model_validate({"preset": preset, "rounds": 7}).applied_to(task)

    assert alone == PRESETS[preset]
    assert beside.rounds == 7
    assert beside.drafts == PRESETS[preset].drafts


def test_without_a_preset_only_what_is_stated_differs() -> None:
    task = Search(drafts=3, critic="none")

    assert SearchOverrides(rounds=0).applied_to(task) == Search(drafts=3, critic="none", rounds=0)
    assert SearchOverrides().applied_to(task) == task
    assert StopOverrides(target=0.0).applied_to(Stop(patience=5)) == Stop(target=0.0, patience=5)
    assert SamplingOverrides(temperature=0.0).applied_to(Sampling(seed=3)) == Sampling(temperature=0.0, seed=3)


def test_null_is_the_same_as_not_stated() -> None:
    stated = StopOverrides.model_validate({"target": None, "patience": None, "min_gain": None})

    assert stated.applied_to(Stop(target=0.5)) == Stop(target=0.5)


async def test_a_tasks_own_constitution_is_drawn_upon(tmp_path: Path) -> None:
    text = f"principles = ['Be still.']\n{SMALLEST}\n[defaults.search]\npreset = 'constitutional'"
    tasks = load_tasks(write(tmp_path, "haiku.toml", text))
    programs = Programs(tasks, Bounds(candidates=16, rounds=10, tokens=4096, seconds=600.0), "model")

    made = programs.program(RefineRequest(prompt="The sea.", task="haiku"))

    assert made.principles == ("Be still.",)
    assert made.budget.deadline > asyncio.get_running_loop().time()
