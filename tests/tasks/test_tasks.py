"""Task files: the built-in ones, a user's own, broken ones; and whose settings win."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from service.engines.base import Sampling
from service.evaluators.text.length import Length
from service.programs.compile import Programs, RequestLimits
from service.programs.models import ServedModels
from service.refinement.program import PRESETS, Search, Stop
from service.tasks.overrides import SamplingOverrides, SearchOverrides, StopOverrides
from service.tasks.task import TaskError, load_rubrics, load_tasks
from service.wire.requests import RefineRequest

BUILT_IN = [
    "code",
    "complete_code",
    "creative",
    "dialogue",
    "general",
    "judge_relevance",
    "rewrite_query",
    "sentiment",
    "summarize",
    "translate",
]
LIMITS = RequestLimits(candidates=16, rounds=10, tokens=4096, seconds=600.0)
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
    example = tasks[name].example
    request = RefineRequest.model_validate_json(json.dumps({"task": name, **example}))

    made = Programs(tasks, LIMITS, ServedModels(("model",))).compile_refine(request)

    prompt = request.messages[-1].text if request.messages else request.prompt or ""
    told = (prompt, *request.parameters.values(), *made.sampling.choices)
    assert made.task == name
    assert all(text in made.request.turn.text for text in told)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_task_has_a_rubric_and_limits(name: str) -> None:
    task = load_tasks()[name]

    assert task.name == name
    assert task.description
    assert 3 <= len({criterion.name for criterion in task.criteria}) == len(task.criteria) <= 5
    assert all(criterion.question.endswith("?") for criterion in task.criteria)
    assert task.sampling.max_tokens <= 512
    assert task.principles


@pytest.mark.parametrize(
    ("name", "needed"),
    [(name, {"translate": ["target_language"], "judge_relevance": ["query"]}.get(name, [])) for name in BUILT_IN],
)
def test_what_a_request_must_give(name: str, needed: list[str]) -> None:
    parameters = load_tasks()[name].parameters

    assert [key for key, parameter in parameters.items() if parameter.default is None] == needed


@pytest.mark.parametrize("name", ["sentiment", "judge_relevance"])
async def test_labels_are_voted_on_and_may_be_the_requests_own(name: str) -> None:
    tasks = load_tasks()
    labels = ["good", "bad", 'so "so"']
    request = {"task": name, **tasks[name].example, "sampling": {"choices": labels}}

    made = Programs(tasks, LIMITS, ServedModels(("model",))).compile_refine(
        RefineRequest.model_validate_json(json.dumps(request))
    )

    assert (made.search.select, made.search.drafts, made.evaluators) == ("vote", 5, [])
    assert made.sampling.choices == tuple(labels)
    assert 'good, bad, so "so"' in made.request.turn.text
    assert not any(label in made.request.turn.text for label in tasks[name].sampling.choices)


def test_a_file_of_a_users_folder_adds_a_task_that_takes_the_rest_from_general(tmp_path: Path) -> None:
    tasks = load_tasks(write(tmp_path, "haiku.toml", SMALLEST))

    haiku, general = tasks["haiku"], tasks["general"]
    assert list(tasks) == sorted([*BUILT_IN, "haiku"])
    assert haiku.description == "A haiku."
    assert (haiku.criteria, haiku.principles) == (general.criteria, general.principles)
    assert haiku.prompts.render("draft", prompt="The sea.", parameters={}) == "The sea."
    assert (haiku.sampling, haiku.search, haiku.stop) == (Sampling(), Search(), Stop())
    assert (haiku.parameters, haiku.evaluators, haiku.rubrics) == ({}, (), [])


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
    rubrics = ["safety"]
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
    assert task.rubrics == [load_rubrics()["safety"]]
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
        pytest.param(f"{SMALLEST}\n[defaults.sampling]\nchoices = ['x']", "choices", id="no choice"),
        pytest.param(
            f"rubrics = ['safety', 'magic']\n{SMALLEST}", "unknown: magic; known: bias, safety", id="a bad rubric"
        ),
        pytest.param(f"{SMALLEST}\nwhen = 2024-01-01", "JSON", id="a date"),
        pytest.param(
            f"{SMALLEST}\n[prompts]\ndraft = '{{{{ parameters.mood }}}}'",
            "mood",
            id="an undeclared parameter",
        ),
        pytest.param(
            f"{SMALLEST}\n[prompts]\ndraft = \"{{{{ parameters['mood'] }}}}\"",
            "undeclared parameters: mood",
            id="an undeclared parameter, by an index",
        ),
        pytest.param(
            f"{SMALLEST}\n[prompts]\ndraft = \"{{{{ parameters.get('mood') }}}}\"",
            "undeclared parameters: mood",
            id="an undeclared parameter, by a call",
        ),
        pytest.param(
            f'{SMALLEST}\n[prompts]\ndraft = "{{{{ parameters[prompt] }}}}"',
            "'draft' cannot be rendered",
            id="a parameter whose name is the caller's",
        ),
        pytest.param(
            f"{SMALLEST}\n[prompts]\ndraft = '{{% for i in range(999999999) %}}{{% endfor %}}'",
            "a range has at most 1000 numbers",
            id="an endless loop",
        ),
        pytest.param(f"{SMALLEST}\n[prompts]\ndraft = '{{{{ (1).x.y }}}}'", "cannot be rendered", id="no attribute"),
        pytest.param(f"{SMALLEST}\n[prompts]\ndraft = '{{{{ 1 // 0 }}}}'", "cannot be rendered", id="no number"),
        pytest.param(
            f"{SMALLEST}\n[prompts]\ndraft = '{{% include \"general.toml\" %}}'", "no other templates", id="an include"
        ),
        pytest.param(f"{SMALLEST}\nx = {'[' * 3000}{']' * 3000}", "nested too deeply", id="nested lists"),
        pytest.param(
            f"{SMALLEST}\n[prompts]\ndraft = '{{{{ {'(' * 3000}1{')' * 3000} }}}}'", "nested", id="nested brackets"
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


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(TaskError, match=r"folder\.toml: it cannot be read: Is a directory"):
        load_tasks(tmp_path)
    (tmp_path / "folder.toml").rmdir()
    (tmp_path / "link.toml").symlink_to("nowhere.toml")
    with pytest.raises(TaskError, match=r"link\.toml: it cannot be read: No such file"):
        load_tasks(tmp_path)


def test_a_rubric_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "rubrics" / "polite.toml").mkdir(parents=True)
    with pytest.raises(TaskError, match=r"polite\.toml: it cannot be read"):
        load_rubrics(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="nowhere is not a folder"):
        load_tasks(tmp_path / "nowhere")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_replaces_the_whole_search_and_a_field_beside_it_wins(preset: str) -> None:
    task = Search(drafts=9, beam=9, branches=9, rounds=9, carry="last", memory=9, critic="none", select="vote")

    alone = SearchOverrides.model_validate({"preset": preset}).apply_to(task)
    beside = SearchOverrides.model_validate({"preset": preset, "rounds": 7}).apply_to(task)

    assert alone == PRESETS[preset]
    assert beside.rounds == 7
    assert beside.drafts == PRESETS[preset].drafts


def test_without_a_preset_only_what_is_stated_differs() -> None:
    task = Search(drafts=3, critic="none")

    assert SearchOverrides(rounds=0).apply_to(task) == Search(drafts=3, critic="none", rounds=0)
    assert SearchOverrides().apply_to(task) == task
    assert StopOverrides(target=0.0).apply_to(Stop(patience=5)) == Stop(target=0.0, patience=5)
    assert SamplingOverrides(temperature=0.0).apply_to(Sampling(seed=3)) == Sampling(temperature=0.0, seed=3)


def test_null_is_the_same_as_not_stated() -> None:
    stated = StopOverrides.model_validate({"target": None, "patience": None, "min_gain": None})

    assert stated.apply_to(Stop(target=0.5)) == Stop(target=0.5)


async def test_a_tasks_own_constitution_is_drawn_upon(tmp_path: Path) -> None:
    text = f"principles = ['Be still.']\n{SMALLEST}\n[defaults.search]\npreset = 'constitutional'"
    tasks = load_tasks(write(tmp_path, "haiku.toml", text))
    programs = Programs(tasks, LIMITS, ServedModels(("model",)))

    made = programs.compile_refine(RefineRequest(prompt="The sea.", task="haiku"))

    assert made.principles == ("Be still.",)
    assert made.budget.deadline > asyncio.get_running_loop().time()


POLITE = """
description = "Courtesy."
principles = ["Be polite."]
[[criteria]]
name = "courtesy"
question = "Is it polite?"
"""


def own_rubric(folder: Path, name: str, text: str) -> Path:
    folder.joinpath("rubrics").mkdir()
    write(folder / "rubrics", name, text)
    return folder


def test_the_built_in_rubrics_are_bias_and_safety() -> None:
    rubrics = load_rubrics()

    assert list(rubrics) == ["bias", "safety"]
    for name, rubric in rubrics.items():
        assert (rubric.name, bool(rubric.description)) == (name, True)
        assert 6 <= len(set(rubric.principles)) == len(rubric.principles) <= 10
        assert 2 <= len({criterion.name for criterion in rubric.criteria}) == len(rubric.criteria) <= 3
        assert all(criterion.question.endswith("?") for criterion in rubric.criteria)


def test_no_criterion_of_a_rubric_has_the_name_of_a_tasks() -> None:
    tasks = {criterion.name for task in load_tasks().values() for criterion in task.criteria}
    rubrics = [criterion.name for rubric in load_rubrics().values() for criterion in rubric.criteria]

    assert len(set(rubrics)) == len(rubrics)
    assert not tasks & set(rubrics)


def test_a_users_folder_may_hold_rubrics_which_its_tasks_may_name(tmp_path: Path) -> None:
    write(own_rubric(tmp_path, "politeness.toml", POLITE), "haiku.toml", f"rubrics = ['politeness']\n{SMALLEST}")

    politeness = load_rubrics(tmp_path)["politeness"]

    assert list(load_rubrics(tmp_path)) == ["bias", "politeness", "safety"]
    assert (politeness.principles, politeness.criteria[0].question) == (("Be polite.",), "Is it polite?")
    assert load_tasks(tmp_path)["haiku"].rubrics == [politeness]
    assert "politeness" not in load_tasks(tmp_path)


def test_a_users_rubric_replaces_the_built_in_one_of_its_name(tmp_path: Path) -> None:
    rubrics = load_rubrics(own_rubric(tmp_path, "safety.toml", POLITE))

    assert (list(rubrics), rubrics["safety"].description) == (["bias", "safety"], "Courtesy.")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(POLITE.replace("principles", "rules"), "principles: Field required", id="no principles"),
        pytest.param(POLITE.replace('"Be polite."', ""), "principles:", id="an empty list"),
        pytest.param(POLITE.partition("[[")[0], "criteria: Field required", id="no criteria"),
        pytest.param(POLITE.replace("question", "query"), "criteria.0.question", id="half a criterion"),
    ],
)
def test_a_broken_rubric_is_named_with_what_is_wrong_in_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TaskError) as refused:
        load_tasks(own_rubric(tmp_path, "politeness.toml", text))

    assert str(refused.value).startswith("rubrics/politeness.toml: ")
    assert said in str(refused.value)


def test_a_draft_that_needs_choices_where_there_are_none_is_refused_at_the_start(tmp_path: Path) -> None:
    text = SMALLEST + '[prompts]\ndraft = "Answer {{ choices[0] }} or not: {{ prompt }}"\n'

    with pytest.raises(TaskError, match=r"haiku\.toml.*'draft' cannot be rendered"):
        load_tasks(write(tmp_path, "haiku.toml", text))


def test_a_task_that_states_what_the_service_lacks_is_refused_at_the_start(tmp_path: Path) -> None:
    text = SMALLEST + '[[evaluators]]\ntype = "webhook"\nname = "nobody"\n'

    with pytest.raises(TaskError, match=r"haiku\.toml.*not configured a webhook of this name"):
        load_tasks(write(tmp_path, "haiku.toml", text))


@pytest.mark.parametrize("name", ["code", "complete_code"])
@pytest.mark.parametrize(("stated", "repairs"), [({}, False), ({"preset": "beam"}, False), ({"repairs": True}, True)])
def test_code_is_not_repaired_unless_the_request_says_so(name: str, stated: dict[str, Any], repairs: bool) -> None:
    assert SearchOverrides(**stated).apply_to(load_tasks()[name].search).repairs is repairs


def test_other_tasks_repair() -> None:
    assert {name for name, task in load_tasks().items() if not task.search.repairs} == {"code", "complete_code"}
