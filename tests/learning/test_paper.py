"""What an exam asks, and what it must not have in common with lessons and benchmarks."""

import json
from pathlib import Path

import pytest

from service.learning.hidden import hide_rules
from service.learning.paper import ExamFailed, make_paper, plain_pairs
from service.learning.practice import all_kinds, make_prompts
from service.learning.recipe import load_recipe
from tests.learning.made import prompt

BENCHMARKS = Path(__file__).parents[2] / "bench"
QUICK = load_recipe("quick")
PROMPTS = make_prompts(600, seed=3)


def test_the_parts_have_their_sizes_and_follow_the_seed() -> None:
    paper = make_paper(PROMPTS, QUICK.practice.kept_out, QUICK.examining)

    assert (len(paper.trained), len(paper.plain), len(paper.refine)) == (240, 40, 90)
    assert not {kind for each in paper.trained for kind in each.prompt.kinds} & set(QUICK.practice.kept_out)
    assert all(set(each.prompt.kinds) & set(QUICK.practice.kept_out) for each in paper.other)
    assert {each.id for each in paper.refine} <= {each.id for each in PROMPTS if each.evaluators}
    assert make_paper(PROMPTS[::-1], QUICK.practice.kept_out, QUICK.examining) == paper


def test_a_recipe_may_leave_parts_out() -> None:
    examining = QUICK.examining.model_copy(update={"hidden": None, "plain": None, "refine": None})
    paper = make_paper(PROMPTS, QUICK.practice.kept_out, examining)

    assert (paper.plain, paper.refine) == ((), ())
    assert {each.hidden for each in (*paper.trained, *paper.other)} == {None}
    assert {each.text for each in paper.prompts} <= {each.text for each in PROMPTS}
    whole = make_paper(PROMPTS, QUICK.practice.kept_out, QUICK.examining)
    assert [(each.id, each.evaluators) for each in paper.prompts] == [(e.id, e.evaluators) for e in whole.prompts]


def test_a_question_has_a_hidden_rule_in_addition_to_its_own() -> None:
    paper = make_paper(PROMPTS, QUICK.practice.kept_out, QUICK.examining)
    usual = {each.id: each for each in PROMPTS}

    for question in paper.trained:
        assert question.hidden is not None
        assert question.prompt.messages == question.hidden.messages
        assert question.prompt.text.startswith(usual[question.prompt.id].text)
        assert question.prompt.evaluators == usual[question.prompt.id].evaluators
        assert not set(question.hidden.kinds) & set(all_kinds())
    assert {question.hidden for question in paper.other} == {None}


def test_without_kinds_that_were_kept_out_there_is_no_exam() -> None:
    with pytest.raises(ExamFailed, match="practise more prompts"):
        make_paper(PROMPTS, ["unknown"], QUICK.examining)


def test_hidden_rules_are_of_kinds_that_nobody_practises() -> None:
    hidden = hide_rules(PROMPTS)

    assert len({each.kinds for each in hidden}) == 8
    assert not {kind for each in hidden for kind in each.kinds} & set(all_kinds())
    known = [evaluator for each in PROMPTS for evaluator in each.evaluators]
    assert not [each for each in hidden if each.evaluators[0] in known]
    for usual, each in zip(PROMPTS, hidden, strict=True):
        assert each.text.startswith(usual.text)
        assert each.verifiers is not None
        assert (each.text == usual.text) == (each.kinds[0] in ("subject", "recites_no_rule"))


@pytest.mark.parametrize(
    ("kind", "follows", "breaks"),
    [
        ("subject", "BAKED BREAD is good.", "Salt salt salt."),
        ("recites_no_rule", "Bread is good.", "Here are exactly three sentences."),
        ("question", "Do you bake?", "I bake."),
        ("no_exclamations", "I bake.", "I bake!"),
    ],
)
def test_a_hidden_rule_alone_decides(kind: str, follows: str, breaks: str) -> None:
    one = prompt("p", "Write about baking bread.", family="baking bread")
    [hidden] = [each for each in hide_rules([one] * 8) if each.kinds == (kind,)]

    assert hidden.verify(follows).passed
    assert not hidden.verify(breaks).passed


def test_plain_texts_are_the_exams_own() -> None:
    pairs = plain_pairs()
    benchmarks = "".join(path.read_text() for path in BENCHMARKS.rglob("*.jsonl"))

    assert len({pair.request for pair in pairs}) == len({pair.reply for pair in pairs}) == 40
    assert any("\u4e00" <= pair.reply[0] <= "\u9fff" for pair in pairs)
    assert benchmarks
    for text in (text for pair in pairs for text in (pair.request, pair.reply)):
        assert json.dumps(text)[1:-1] not in benchmarks
        assert json.dumps(text, ensure_ascii=False)[1:-1] not in benchmarks
