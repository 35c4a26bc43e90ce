"""From a request to a program: what is refused and under which field, what is filled in and from where."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.engines.base import Sampling
from service.errors import InvalidRequest
from service.evaluators.model.judge import Criterion, Judge
from service.evaluators.text.length import Length
from service.programs.compile import Programs, RequestLimits
from service.programs.models import ServedModels
from service.refinement.program import PRESETS, Generate, Refine, Review, Search, Stop
from service.tasks.task import Rubric, load_rubrics, load_tasks
from service.wire.requests import CritiqueRequest, GenerateRequest, RefineRequest

LIMITS = RequestLimits(candidates=6, rounds=4, tokens=1000, seconds=60.0)
PROGRAMS = Programs(load_tasks(), LIMITS, ServedModels(("served-model",)), load_rubrics())
PROMPT = {"prompt": "Write about the sea."}
HELLO = {"role": "user", "content": "Hello."}
ANSWER = {"role": "assistant", "content": "Hello!"}
RULES = {"role": "system", "content": "Be brief."}
LENGTH = {"type": "length", "unit": "words", "max": 40}
FENCED = ["starts_with", "ends_with"]
JUDGE = {"type": "judge", "criteria": [{"name": "wit", "question": "Is it witty?"}]}


def generation(**request: Any) -> Generate:
    return PROGRAMS.compile_generate(GenerateRequest.model_validate_json(as_json(request)))


def review(**request: Any) -> Review:
    return PROGRAMS.compile_review(CritiqueRequest.model_validate_json(as_json({"candidate": "Sand.", **request})))


def program(**request: Any) -> Refine:
    return PROGRAMS.compile_refine(RefineRequest.model_validate_json(as_json(request)))


def as_json(request: dict[str, Any]) -> str:
    return json.dumps(request)


def turns(conversation: Any) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in conversation.turns()]


COMMON = [
    ("prompt", {}),
    ("prompt", {**PROMPT, "messages": [HELLO]}),
    ("task", {**PROMPT, "task": "nonsense"}),
    ("model", {**PROMPT, "model": "another"}),
    ("parameters.target_language", {**PROMPT, "task": "translate"}),
    ("parameters.mood", {**PROMPT, "parameters": {"mood": "merry"}}),
    ("parameters.query", {**PROMPT, "task": "judge_relevance"}),
    ("messages.0.role", {"messages": [ANSWER]}),
    ("messages.1.role", {"messages": [ANSWER, ANSWER, HELLO]}),
    ("messages.1.role", {"messages": [RULES, ANSWER]}),
    ("messages.1.role", {"messages": [RULES, RULES]}),
    ("messages.2.role", {"messages": [ANSWER, HELLO, RULES]}),
    ("messages.0.content", {"messages": [{"role": "system", "content": " "}]}),
    ("messages.1.role", {"messages": [HELLO, HELLO]}),
    ("messages.1.role", {"messages": [HELLO, RULES]}),
    ("messages.1.role", {"messages": [HELLO, ANSWER]}),
    ("messages.2.role", {"messages": [RULES, HELLO, ANSWER]}),
    ("messages.0.content", {"messages": [{"role": "user", "content": " \n"}]}),
    ("messages.2.content", {"messages": [HELLO, ANSWER, {"role": "user", "content": ""}]}),
]


@pytest.mark.parametrize("make", [generation, program, review])
@pytest.mark.parametrize(("field", "request_"), COMMON)
async def test_what_every_endpoint_refuses(make: Any, field: str, request_: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        make(**request_)

    assert [error.field for error in refused.value.errors] == [field]
    assert refused.value.errors[0].message in refused.value.detail or field.startswith("parameters")


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        ("search.drafts", {"search": {"drafts": 7}}),
        ("search.beam", {"search": {"beam": 7}}),
        ("search.branches", {"search": {"branches": 7}}),
        ("search.branches", {"search": {"beam": 3, "branches": 3}}),
        ("search.rounds", {"search": {"rounds": 5}}),
        ("budget.seconds", {"budget": {"seconds": 60.1}}),
        ("judge", {"search": {"preset": "vote"}, "judge": True}),
        ("criteria", {"search": {"preset": "vote"}, "criteria": JUDGE["criteria"]}),
        ("rubrics", {"search": {"preset": "vote"}, "rubrics": ["bias"]}),
        ("rubrics", {"task": "sentiment", "rubrics": ["bias"]}),
        ("evaluators.1", {"search": {"select": "vote"}, "evaluators": [LENGTH, JUDGE]}),
        ("evaluators.0", {"search": {"select": "pairwise"}, "evaluators": [JUDGE]}),
        ("criteria", {"judge": False, "criteria": JUDGE["criteria"], "evaluators": [LENGTH]}),
        ("evaluators.0.type", {"evaluators": [{"type": "code_tests", "tests": "assert True"}]}),
        ("evaluators.1.name", {"evaluators": [LENGTH, {"type": "webhook", "name": "nobody"}]}),
    ],
)
async def test_what_a_refine_refuses(field: str, wanted: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        program(**PROMPT, **wanted)

    assert [error.field for error in refused.value.errors] == [field]


async def test_rules_that_no_text_can_follow_together_are_refused_by_name() -> None:
    shouting = {"type": "keywords", "include": ["rain"]}
    silent = {"type": "keywords", "exclude": ["Rain"]}
    with pytest.raises(InvalidRequest) as refused:
        program(**PROMPT, evaluators=[shouting, LENGTH, silent])

    assert [error.field for error in refused.value.errors] == ["evaluators.0", "evaluators.2"]
    assert refused.value.errors[0].message == 'no text can follow both: "rain" is demanded, and "Rain" is excluded'


async def test_soft_rules_may_contradict_each_other() -> None:
    program(**PROMPT, evaluators=[{"type": "length", "unit": "words", "min": 9}, {**LENGTH, "max": 8, "hard": False}])


async def test_all_bounds_that_are_broken_are_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as refused:
        program(**PROMPT, search={"drafts": 7, "beam": 7, "branches": 7, "rounds": 5})

    assert [error.field for error in refused.value.errors] == [
        "search.drafts",
        "search.beam",
        "search.branches",
        "search.rounds",
    ]


async def test_all_wrong_parameters_are_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as refused:
        program(**PROMPT, task="translate", parameters={"mood": "merry", "source_language": "German"})

    assert {error.field for error in refused.value.errors} == {"parameters.mood", "parameters.target_language"}


async def test_what_is_at_the_bounds_is_accepted() -> None:
    made = program(
        **PROMPT,
        search={"drafts": 6, "beam": 3, "branches": 2, "rounds": 4},
        sampling={"max_tokens": 1000},
        budget={"seconds": 60},
    )

    assert made.search == Search(drafts=6, beam=3, branches=2, rounds=4)
    assert made.sampling.max_tokens == 1000
    assert generation(**PROMPT, n=6).n == 6


@pytest.mark.parametrize("make", [generation, program])
async def test_more_tokens_than_the_bound_are_refused(make: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        make(**PROMPT, sampling={"max_tokens": 1001})

    assert [error.field for error in refused.value.errors] == ["sampling.max_tokens"]


@pytest.mark.parametrize("prompt", ["", " \n", ["One?", ""], []])
async def test_an_empty_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        generation(prompt=prompt)

    assert {error["loc"][0] for error in refused.value.errors()} == {"prompt"}


async def test_generate_refuses_more_siblings_than_the_bound() -> None:
    with pytest.raises(InvalidRequest) as refused:
        generation(**PROMPT, n=7)

    assert [error.field for error in refused.value.errors] == ["n"]


async def test_a_default_beyond_the_bounds_is_not_held_against_the_request() -> None:
    limits = RequestLimits(candidates=1, rounds=1, tokens=100, seconds=60.0)
    tight = Programs(load_tasks(), limits, ServedModels(("served-model",)))

    made = tight.compile_refine(RefineRequest.model_validate(PROMPT))

    assert (made.search.rounds, made.sampling.max_tokens) == (1, 100)


async def test_at_the_bounds_choices_are_accepted() -> None:
    choices = [f"{number:03}" + "x" * 197 for number in range(50)]

    assert program(**PROMPT, sampling={"choices": choices}).sampling.choices == tuple(choices)


async def test_every_prompt_of_a_list_becomes_a_conversation() -> None:
    made = generation(prompt=["One?", "Two?"], task="summarize", parameters={"style": "a haiku"})

    assert len(made.requests) == 2
    for conversation, prompt in zip(made.requests, ("One?", "Two?"), strict=True):
        [(role, text)] = turns(conversation)
        assert role == "user"
        assert text.endswith(f"Text:\n{prompt}")
        assert "as a haiku" in text


async def test_only_the_last_message_is_put_into_the_tasks_prompt() -> None:
    messages = [RULES, HELLO, ANSWER, {"role": "user", "content": "The sea is deep."}]

    made = program(task="translate", parameters={"target_language": "French"}, messages=messages)

    *earlier, (role, text) = turns(made.request)
    assert earlier == [("system", "Be brief."), ("user", "Hello."), ("assistant", "Hello!")]
    assert role == "user"
    assert "into French" in text
    assert "The sea is deep." in text


@pytest.mark.parametrize("make", [generation, program, review])
@pytest.mark.parametrize("before", [[ANSWER], [RULES, ANSWER], [ANSWER, HELLO, ANSWER]])
async def test_an_assistant_s_greeting_may_come_first(make: Any, before: list[dict[str, str]]) -> None:
    made = make(messages=[*before, HELLO])

    conversation = made.requests[0] if isinstance(made, Generate) else made.request
    assert turns(conversation) == [(message["role"], message["content"]) for message in [*before, HELLO]]


@pytest.mark.parametrize("make", [generation, program, review])
async def test_a_system_message_alone_is_what_is_answered(make: Any) -> None:
    made = make(messages=[RULES], task="summarize")

    conversation = made.requests[0] if isinstance(made, Generate) else made.request
    [(role, text)] = turns(conversation)
    assert role == "user"
    assert text.endswith("Text:\nBe brief.")


async def test_a_prompt_is_never_rendered() -> None:
    made = program(prompt="{{ parameters }} {% raw %}")

    assert turns(made.request) == [("user", "{{ parameters }} {% raw %}")]


async def test_a_parameter_with_a_default_may_be_left_out() -> None:
    [(_, text)] = turns(program(**PROMPT, task="summarize").request)

    assert "as one short paragraph" in text


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, [*FENCED, "judge"]),
        ({"judge": False}, FENCED),
        ({"evaluators": [LENGTH]}, [*FENCED, "length", "judge"]),
        ({"evaluators": [LENGTH], "judge": False}, [*FENCED, "length"]),
        ({"evaluators": [JUDGE]}, [*FENCED, "judge", "judge"]),
    ],
)
@pytest.mark.parametrize("make", [program, review])
async def test_the_requests_evaluators_come_after_the_tasks_and_the_judge_last(
    make: Any, request_: dict[str, Any], expected: list[str]
) -> None:
    made = make(**PROMPT, task="code", **request_)

    assert [evaluator.type for evaluator in made.evaluators] == expected


@pytest.mark.parametrize("make", [program, review])
async def test_criteria_replace_the_tasks_rubric(make: Any) -> None:
    [task_judge] = make(**PROMPT).evaluators
    [own_judge] = make(**PROMPT, criteria=JUDGE["criteria"]).evaluators

    assert isinstance(task_judge, Judge)
    assert isinstance(own_judge, Judge)
    assert [line.name for line in task_judge.criteria] == ["fluency", "coherence", "accuracy"]
    assert [line.name for line in own_judge.criteria] == ["wit"]


@pytest.mark.parametrize("make", [program, review])
async def test_rubrics_add_their_criteria_to_whichever_rubric_there_is(make: Any) -> None:
    bias, safety = ([line.name for line in load_rubrics()[name].criteria] for name in ("bias", "safety"))

    [task_judge] = make(**PROMPT, rubrics=["bias"]).evaluators
    [own_judge] = make(**PROMPT, rubrics=["safety", "bias", "safety"], criteria=JUDGE["criteria"]).evaluators

    assert [line.name for line in task_judge.criteria] == ["fluency", "coherence", "accuracy", *bias]
    assert [line.name for line in own_judge.criteria] == ["wit", *safety, *bias]
    assert make(**PROMPT, rubrics=["bias"], judge=False, evaluators=[LENGTH]).evaluators == [
        Length(unit="words", max=40)
    ]


async def test_rubrics_add_their_principles_to_those_that_there_are() -> None:
    bias = tuple(load_rubrics()["bias"].principles)
    constitutional = {"preset": "constitutional"}

    assert program(**PROMPT, rubrics=["bias"]).principles == bias
    assert program(**PROMPT, rubrics=["bias"], principles=["Be kind."]).principles == ("Be kind.", *bias)
    general = load_tasks()["general"].principles
    assert program(**PROMPT, rubrics=["bias"], search=constitutional).principles == (*general, *bias)


async def test_a_tasks_own_rubrics_hold_beside_whatever_the_request_states(tmp_path: Path) -> None:
    (tmp_path / "joke.toml").write_text("description = 'x'\nrubrics = ['safety']\nexample = {prompt = 'The sea.'}")
    programs = Programs(load_tasks(tmp_path), LIMITS, ServedModels(("served-model",)), load_rubrics())
    safety, bias = load_rubrics()["safety"], load_rubrics()["bias"]

    asked = {**PROMPT, "task": "joke", "rubrics": ["safety", "bias"], "criteria": JUDGE["criteria"]}
    made = programs.compile_refine(RefineRequest.model_validate_json(as_json(asked)))

    [judge] = made.evaluators
    assert isinstance(judge, Judge)
    assert judge.criteria[1:] == (*safety.criteria, *bias.criteria)
    assert made.principles == (*safety.principles, *bias.principles)


@pytest.mark.parametrize("make", [program, review])
async def test_every_unknown_rubric_is_named(make: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        make(**PROMPT, rubrics=["magic", "bias", "taste"])

    assert [error.field for error in refused.value.errors] == ["rubrics.0", "rubrics.2"]
    assert "bias, safety" in refused.value.errors[0].message


async def test_rubrics_of_the_operators_may_be_named() -> None:
    own = Rubric("taste", "Taste.", ("Be tasteful.",), (Criterion(name="taste", question="Is it tasteful?"),))
    programs = Programs(load_tasks(), LIMITS, ServedModels(("served-model",)), rubrics={"taste": own})

    made = programs.compile_refine(RefineRequest.model_validate_json(as_json({**PROMPT, "rubrics": ["taste"]})))

    assert made.principles == ("Be tasteful.",)
    with pytest.raises(InvalidRequest, match="rubrics"):
        programs.compile_refine(RefineRequest.model_validate_json(as_json({**PROMPT, "rubrics": ["bias"]})))


@pytest.mark.parametrize("make", [program, review, generation])
async def test_choices_are_the_requests_or_the_tasks_and_the_draft_prompt_may_list_them(make: Any) -> None:
    asked = {**PROMPT, "task": "sentiment"}
    whole = make(**asked, sampling={"choices": ["good", "bad"]})
    default = make(**asked)

    own, given = (made.requests[0] if isinstance(made, Generate) else made.request for made in (default, whole))
    assert ": good, bad." in given.turn.text
    assert ": positive, negative, neutral, mixed." in own.turn.text
    if not isinstance(whole, Review):
        assert whole.sampling.choices == ("good", "bad")
        assert default.sampling.choices == ("positive", "negative", "neutral", "mixed")
        assert make(**PROMPT).sampling.choices == ()


@pytest.mark.parametrize(
    "request_",
    [{"task": "sentiment"}, {"sampling": {"choices": ["good", "bad"]}}],
    ids=["the task's", "the request's"],
)
async def test_choices_and_a_schema_are_refused_together(request_: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        generation(**PROMPT, response_schema={"type": "object"}, **request_)

    assert [error.field for error in refused.value.errors] == ["response_schema"]


@pytest.mark.parametrize(
    ("field", "choices"),
    [
        (("sampling", "choices"), ["alone"]),
        (("sampling", "choices"), [str(number) for number in range(51)]),
        (("sampling", "choices", 1), ["good", ""]),
        (("sampling", "choices", 0), ["x" * 201, "good"]),
        (("sampling", "choices", 0), [1, 2]),
    ],
)
async def test_choices_out_of_bounds_are_refused(field: tuple[str, ...], choices: list[Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        program(**PROMPT, sampling={"choices": choices})

    assert refused.value.errors()[0]["loc"] == field


async def test_a_vote_takes_the_judges_place() -> None:
    made = program(**PROMPT, search={"preset": "vote"}, evaluators=[LENGTH])

    assert [evaluator.type for evaluator in made.evaluators] == ["length"]


async def test_a_vote_takes_the_place_of_the_judge_of_a_task_too(tmp_path: Path) -> None:
    rubric = "[[evaluators]]\ntype = 'judge'\ncriteria = [{name = 'wit', question = 'Is it witty?'}]"
    (tmp_path / "joke.toml").write_text(f"description = 'A joke.'\nexample = {{prompt = 'The sea.'}}\n{rubric}")
    programs = Programs(load_tasks(tmp_path), LIMITS, ServedModels(("served-model",)))

    asked = {**PROMPT, "task": "joke", "search": {"preset": "vote"}}
    made = programs.compile_refine(RefineRequest.model_validate(asked))

    assert [evaluator.type for evaluator in made.evaluators] == []


async def test_constitutional_brings_the_tasks_principles_and_other_presets_none() -> None:
    task = load_tasks()["general"]

    assert program(**PROMPT, search={"preset": "constitutional"}).principles == task.principles
    assert len(task.principles) > 1
    assert program(**PROMPT, search={"preset": "self_refine"}).principles == ()
    assert program(**PROMPT).principles == ()


@pytest.mark.parametrize("preset", ["constitutional", "self_refine"])
async def test_the_requests_own_principles_are_used_with_any_preset(preset: str) -> None:
    assert program(**PROMPT, search={"preset": preset}, principles=["Be kind."]).principles == ("Be kind.",)


async def test_fields_beside_a_preset_override_it_and_the_preset_overrides_the_task() -> None:
    assert program(**PROMPT, search={"preset": "beam"}).search == PRESETS["beam"]
    assert program(**PROMPT, search={"preset": "beam", "drafts": 2}).search == Search(drafts=2, beam=2, branches=2)
    assert program(**PROMPT, search={"drafts": 2}).search == Search(drafts=2)


async def test_what_a_request_leaves_out_comes_from_the_task() -> None:
    made = program(**PROMPT, task="summarize", sampling={"top_p": 0.5})

    assert made.sampling == Sampling(temperature=0.5, top_p=0.5, max_tokens=256, landing=True)
    assert made.stop == Stop()


async def test_sampling_and_stop_rules_are_the_requests_where_it_states_them() -> None:
    made = program(
        **PROMPT,
        sampling={"temperature": 0.0, "max_tokens": 5, "stop": ["END"], "seed": 3},
        stop={"target": 0.0, "patience": 1, "min_gain": 0.5},
    )

    assert made.sampling == Sampling(temperature=0.0, max_tokens=5, stop=("END",), seed=3, landing=True)
    assert made.stop == Stop(target=0.0, patience=1, min_gain=0.5)


SCHEMA = {"type": "object", "properties": {"yes": {"type": "boolean"}}}
CHOICES = {"choices": ["yes", "no"]}


@pytest.mark.parametrize(
    ("asked", "lands"),
    [
        ({}, True),
        ({"sampling": {"landing": False}}, False),
        ({"task": "code"}, False),
        ({"task": "complete_code"}, False),
        ({"task": "code", "sampling": {"landing": True}}, True),
        ({"sampling": {"landing": True, **CHOICES}}, False),
        ({"evaluators": [{"type": "json_schema", "schema": SCHEMA}], "sampling": {"landing": True}}, False),
    ],
)
async def test_a_refine_lands_prose_unless_it_shall_not(asked: dict[str, Any], lands: bool) -> None:
    assert program(**PROMPT, **asked).sampling.landing is lands


@pytest.mark.parametrize(
    ("asked", "lands"),
    [
        ({}, False),
        ({"sampling": {"landing": True}}, True),
        ({"sampling": {"landing": True}, "response_schema": SCHEMA}, False),
        ({"sampling": {"landing": True, **CHOICES}}, False),
    ],
)
async def test_a_generate_lands_prose_if_it_is_asked_to(asked: dict[str, Any], lands: bool) -> None:
    assert generation(**PROMPT, **asked).sampling.landing is lands


@pytest.mark.parametrize(("seconds", "expected"), [(None, 60.0), (5.0, 5.0)])
async def test_the_deadline_is_the_requests_or_the_services(seconds: float | None, expected: float) -> None:
    now = asyncio.get_running_loop().time()

    made = program(**PROMPT, budget={"seconds": seconds, "tokens": 100, "calls": 7})

    assert made.budget.deadline - now == pytest.approx(expected, abs=1.0)
    assert (made.budget.tokens, made.budget.calls) == (100, 7)


async def test_every_program_has_an_id_and_a_fence_of_its_own() -> None:
    first, second = program(**PROMPT), program(**PROMPT)

    assert first.id != second.id
    assert first.fence != second.fence
    assert first.id.startswith("ref-")
    assert review(**PROMPT).id.startswith("crit-")
    assert generation(**PROMPT).id.startswith("gen-")


async def test_a_review_is_of_the_candidate_and_gives_feedback_unless_it_shall_not() -> None:
    assert (review(**PROMPT).candidate, review(**PROMPT).feedback) == ("Sand.", True)
    assert review(**PROMPT, feedback=False).feedback is False


async def test_the_served_model_may_be_named() -> None:
    assert program(**PROMPT, model="served-model").task == "general"


async def test_a_refine_that_nothing_evaluates_is_refused_where_it_would_revise() -> None:
    with pytest.raises(InvalidRequest) as refused:
        program(**PROMPT, judge=False)

    assert [error.field for error in refused.value.errors] == ["judge"]
    assert program(**PROMPT, judge=False, search={"rounds": 0}).evaluators == []


async def test_programs_are_numbered_in_order_of_arrival() -> None:
    assert generation(**PROMPT).arrival < review(**PROMPT).arrival < program(**PROMPT).arrival


def test_all_that_a_vote_does_not_go_with_is_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as refused:
        program(**PROMPT, search={"preset": "vote"}, judge=True, rubrics=["bias"], evaluators=[LENGTH, JUDGE])

    assert [error.field for error in refused.value.errors] == ["judge", "rubrics", "evaluators.1"]
