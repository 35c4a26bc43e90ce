"""Practice prompts can be made by the hundred, are the same for a seed, and can be followed."""

import json
from collections import Counter
from pathlib import Path

import pytest

from service.constraints.contradictions import refuse_contradictions
from service.evaluators.base import gather_constraints
from service.learning.practice import all_kinds, make_prompts
from service.learning.split import NEAR, Split, resemblance, sign

QUALITY = Path(__file__).parents[2] / "bench/quality/prompts"


def test_the_same_seed_gives_the_same_prompts_and_another_one_others() -> None:
    assert make_prompts(50, seed=3) == make_prompts(50, seed=3)
    assert make_prompts(50, seed=3) != make_prompts(50, seed=4)


def test_every_rule_can_be_checked_and_none_contradicts_another() -> None:
    for prompt in make_prompts(1_000):
        assert prompt.verifiers is not None, prompt
        refuse_contradictions(gather_constraints(prompt.verifiers))


def test_all_kinds_appear_and_some_prompts_are_plain() -> None:
    prompts = make_prompts(600)
    counts = Counter(kind for prompt in prompts for kind in prompt.kinds)
    assert set(counts) == set(all_kinds())
    assert 0.05 < sum(not prompt.kinds for prompt in prompts) / 600 < 0.15
    assert len({prompt.text for prompt in prompts}) == 600


def test_kinds_that_were_not_asked_for_do_not_appear() -> None:
    prompts = make_prompts(100, kinds=["lowercase", "title"])
    assert {kind for prompt in prompts for kind in prompt.kinds} == {"lowercase", "title"}
    with pytest.raises(ValueError, match="unknown kinds of rules: rhyme"):
        make_prompts(1, kinds=["rhyme"])


def test_a_subject_is_in_one_part_only() -> None:
    prompts = make_prompts(400)
    parts, _ = Split().assign(prompts)
    found = {(prompt.family, parts[prompt.id]) for prompt in prompts if parts[prompt.id] != "neither"}
    assert len(found) == len({family for family, _ in found})
    assert Counter(parts.values())["neither"] < 40


def test_no_practice_prompt_is_near_to_one_that_measures_quality() -> None:
    lines = [line for path in QUALITY.glob("*.jsonl") for line in path.read_text().splitlines()]
    measured = [sign(stated["prompt"]) for stated in map(json.loads, lines) if "prompt" in stated]
    assert len(measured) > 100
    practised = [sign(prompt.text) for prompt in make_prompts(100)]
    assert max(resemblance(one, other) for one in practised for other in measured) < NEAR
