"""The steps of learning, one after another, with the scripted engine as the model and no training."""

import hashlib
import json
from operator import methodcaller
from pathlib import Path

import pytest

from service.engines.base import Sample
from service.engines.conversation import Conversation
from service.engines.scripted import Script, ScriptedEngine
from service.learning.collected import Collected, DamagedFile, read_lines, write_lines
from service.learning.exercises import Exercise
from service.learning.gate import Judgement
from service.learning.lessons import BestText
from service.learning.lineage import withdraw, write_stored
from service.learning.manifest import Verdict, digest_of
from service.learning.paper import ExamFailed
from service.learning.practice import all_kinds
from service.learning.process import Progress
from service.learning.prompts import Message, Prompt
from service.learning.recipe import HiddenRules, Recipe, Refining, load_recipe
from service.learning.registry import Refused
from service.learning.split import NEAR, resemblance, sign
from service.learning.trainer import EXERCISES, TEXTS
from service.learning.workshop import EVALUATORS, Workshop
from tests.learning.made import collected, text
from tests.learning.test_trainer import fake

EASY = {"lowercase", "no_commas", "most_words", "exclude_words"}
"""Kinds of rules that the scripted model can follow."""
KEPT_OUT = tuple(kind for kind in all_kinds() if kind not in EASY)


def write(skill: float) -> ScriptedEngine:
    """A model of which a text has that chance to follow the easy rules."""

    def reply(call: Sample) -> str:
        drawn = hashlib.sha256(f"{call.prompt}{call.sampling.seed}".encode()).digest()[0] / 256
        return "we know it well by now." if drawn < skill else f"Well, {drawn}: IT is so."

    return ScriptedEngine(Script(reply=reply))


class Reads:
    def prompt_ids(self, conversation: Conversation, prefill: str = "", *, thinking: bool = True) -> list[int]:
        return []


@pytest.fixture
def recipe() -> Recipe:
    quick = load_recipe("quick")
    return quick.model_copy(
        update={
            "examining": quick.examining.model_copy(
                update={
                    "samples": 4,
                    "margin": 0.2,
                    "look": 10,
                    "hidden": HiddenRules(margin=0.4),
                    "refine": Refining(prompts=8, tokens=300, margin=0.5),
                }
            ),
            "practice": quick.practice.model_copy(update={"prompts": 1_000, "kept_out": KEPT_OUT}),
            "collecting": quick.collecting.model_copy(update={"constrained": 0}),
        }
    )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text("{}")
    return tmp_path / "base"


@pytest.fixture
def shop(tmp_path: Path, base: Path) -> Workshop:
    return Workshop(tmp_path / "shop", base, fake("works"))


async def learn(shop: Workshop, recipe: Recipe) -> str:
    await shop.collect(write(0.4), recipe, lambda done, of: None)
    shop.make_lessons()
    return (await shop.train(recipe, lambda _: None)).adapter


async def examine(shop: Workshop, adapter: str, before: float, after: float) -> Verdict:
    return await shop.examine(
        adapter, shop.incumbent_of(adapter), write(before), write(after), Reads(), lambda *look: None
    )


async def test_collecting_ends_in_its_time_with_the_first_prompts(
    shop: Workshop, recipe: Recipe, tmp_path: Path
) -> None:
    hasty = recipe.model_copy(update={"collecting": recipe.collecting.model_copy(update={"seconds": 0.5})})
    slow = ScriptedEngine(Script(reply=lambda call: "so it is", seconds_per_call=0.3))

    count = await shop.collect(slow, hasty, lambda done, of: None)

    prompts = [each.id for each in read_lines(tmp_path / "shop/prompts.jsonl", Prompt)]
    written = [each.prompt.id for each in read_lines(tmp_path / "shop/collected.jsonl", Collected)]
    assert 0 < count == len(written) < len(prompts) / 4
    assert written == [each for each in prompts if each in written]
    assert prompts.index(written[-1]) < len(prompts) / 2


async def test_a_better_adapter_passes_and_serves(shop: Workshop, recipe: Recipe, tmp_path: Path) -> None:
    adapter = await learn(shop, recipe)
    verdict = await examine(shop, adapter, 0.1, 0.9)

    assert verdict.decision == "promote", verdict
    assert not [reason for reason in verdict.reasons if "not" in reason]
    assert verdict.figures["other.prompts"] == 20 < len(shop.paper(shop.registry.list()[0]).other)
    [manifest] = shop.registry.list()
    assert manifest.verdicts == (verdict,)
    assert (verdict.attempt, verdict.against) == (1, "")
    assert verdict.figures["trained.candidate.passed"] > verdict.figures["trained.incumbent.passed"]
    assert verdict.figures["plain.candidate.likelihood"] == verdict.figures["plain.incumbent.likelihood"] < 0
    assert verdict.figures["refine.candidate.tokens_per_pass"] < verdict.figures["refine.incumbent.tokens_per_pass"]
    shop.registry.promote(adapter)
    assert (tmp_path / "shop/current/manifest.json").exists()


async def test_the_same_model_and_a_worse_one_do_not(shop: Workshop, recipe: Recipe) -> None:
    adapter = await learn(shop, recipe)

    same = await examine(shop, adapter, 0.4, 0.4)
    assert same.decision == "broken"
    assert "writes what the incumbent writes" in same.reasons[0]
    worse = await examine(shop, adapter, 0.9, 0.0)
    assert worse.decision == "reject"
    assert "plain.prompts" not in worse.figures
    assert [verdict.attempt for verdict in shop.registry.list()[0].verdicts] == [1, 2]


async def test_an_exam_ends_with_the_part_that_shows_nothing(shop: Workshop, recipe: Recipe) -> None:
    adapter = await learn(shop, recipe)

    slightly_better = await examine(shop, adapter, 0.4, 0.5)

    assert slightly_better.decision == "inconclusive"
    assert "better on trained kinds of rules: not shown" in slightly_better.reasons
    assert "other kinds of rules: not examined" in slightly_better.reasons
    paper = shop.paper(shop.registry.list()[0])
    assert slightly_better.figures["trained.prompts"] == len(paper.trained)
    assert "refine.prompts" not in slightly_better.figures


async def test_no_prompt_of_the_exam_or_near_to_one_was_learned(shop: Workshop, recipe: Recipe, tmp_path: Path) -> None:
    await learn(shop, recipe)
    [manifest] = shop.registry.list()
    learned = read_lines(shop.lessons_folder() / TEXTS, BestText)
    parts, _ = shop._split().assign([lesson.prompt for lesson in learned])

    assert learned
    assert set(parts.values()) == {"train"}
    assert not {kind for lesson in learned for kind in lesson.prompt.kinds} & set(recipe.practice.kept_out)
    exam = {digest_of([passage]) for prompt in shop.paper(manifest).prompts for passage in prompt.passages}
    assert exam
    assert exam.isdisjoint(manifest.prompts)


async def test_no_prompt_of_the_exam_comes_back_by_another_way(shop: Workshop, recipe: Recipe, tmp_path: Path) -> None:
    await learn(shop, recipe)
    exam = shop.paper(shop.registry.list()[0]).prompts[:20]
    hidden = [
        collected(
            text("Well."), of=Prompt(id=f"{number}", messages=(Message(role="user", content=asked),), evaluators=())
        )
        for number, asked in enumerate(
            shown
            for prompt in exam
            for shown in (prompt.text, prompt.text.upper(), f"Please answer this.\n\n{prompt.text}\n\nBe brief.")
        )
    ]
    free = collected(
        text("Well."), of=Prompt(id="free", messages=(Message(role="user", content="Hi."),), evaluators=())
    )
    rows = [{"prompt": each.prompt.text, "completion": "Well."} for each in (*hidden, free)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    shop.collect_files([tmp_path / "rows.jsonl"])
    write_lines(tmp_path / "shop/stored.jsonl", [each.model_copy(update={"trace": "t"}) for each in (*hidden, free)])

    lessons, _ = shop.make_lessons()
    assert lessons.left_out["of the exam or near to it"] >= 2 * len(hidden)
    signatures = [sign(prompt.text) for prompt in exam]
    for prompt in (*(best.prompt for best in lessons.texts), *(pair.prompt for pair in lessons.pairs)):
        for passage in prompt.passages:
            assert all(resemblance(sign(passage), signature) < NEAR for signature in signatures)
    assert any(lesson.prompt.text == "Hi." for lesson in lessons.texts)


async def test_exercises_are_learned_from_too_and_none_is_of_the_exam(shop: Workshop, recipe: Recipe) -> None:
    trying = load_recipe("grpo").training.trying
    alone = recipe.training.model_copy(update={"texts_epochs": 0, "pairs_epochs": 0, "trying": trying})
    recipe = recipe.model_copy(update={"training": alone})
    await learn(shop, recipe)
    exercises = read_lines(shop.lessons_folder() / EXERCISES, Exercise)
    [manifest] = shop.registry.list()

    assert len(exercises) == manifest.exercises > 8
    assert {digest_of([exercise.prompt.text]) for exercise in exercises} <= set(manifest.prompts)
    parts, _ = shop._split().assign([exercise.prompt for exercise in exercises])
    assert set(parts.values()) == {"train"}


async def test_a_leak_is_found_before_the_exam(shop: Workshop, recipe: Recipe) -> None:
    adapter = await learn(shop, recipe)
    [manifest] = shop.registry.list()
    leaked = digest_of([shop.paper(manifest).prompts[0].text])
    shop.registry.amend(adapter, lambda now: now.model_copy(update={"prompts": (*now.prompts, leaked)}))

    with pytest.raises(ExamFailed, match="1 prompts of the exam are among the adapter's lessons"):
        await examine(shop, adapter, 0.1, 0.9)


async def test_what_an_exam_could_say_nothing_of_is_refused(shop: Workshop, recipe: Recipe, base: Path) -> None:
    await shop.collect(write(0.4), recipe, lambda done, of: None)
    _, lessons = shop.make_lessons()
    (lessons / EVALUATORS).write_text("those of last year")
    adapter = (await shop.train(recipe, lambda _: None)).adapter
    with pytest.raises(Refused, match=f"the evaluators have changed since the lessons of {adapter} were made"):
        shop.incumbent_of(adapter)
    shop.make_lessons()
    assert (await shop.train(recipe, lambda _: None)).adapter == adapter

    shop.registry.promote(adapter, force=True)
    with pytest.raises(Refused, match="serves already"):
        shop.incumbent_of(adapter)
    shop.registry.rollback()
    assert shop.incumbent_of(adapter) == ""
    (base / "config.json").write_text('{"another": "model"}')
    with pytest.raises(Refused, match="was trained on another base"):
        shop.incumbent_of(adapter)


async def test_what_changes_during_an_exam_stays(shop: Workshop, recipe: Recipe) -> None:
    adapter = await learn(shop, recipe)

    def change(part: str, done: int, of: int, judgement: Judgement) -> None:
        if not shop.registry.current:
            shop.registry.amend(adapter, methodcaller("without", ["ref-1"]))
            shop.registry.promote(adapter, force=True)

    verdict = await shop.examine(adapter, "", write(0.1), write(0.9), Reads(), change)

    manifest = shop.registry.manifest(adapter)
    assert (manifest.withdrawn, manifest.forced, manifest.verdicts) == (("ref-1",), True, (verdict,))
    assert verdict.against == ""


async def test_what_is_withdrawn_while_an_adapter_is_trained_marks_it(
    shop: Workshop, recipe: Recipe, tmp_path: Path
) -> None:
    of = Prompt(id="free", messages=(Message(role="user", content="Hi."),), evaluators=())
    write_stored(tmp_path / "shop", [collected(text("Well.", rating="up"), of=of, trace="ref-1")])
    await shop.collect(write(0.4), recipe, lambda done, of: None)
    shop.make_lessons()

    def meanwhile(_: Progress) -> None:
        withdraw(tmp_path / "shop", ["ref-1"])

    manifest = await shop.train(recipe, meanwhile)

    assert manifest.withdrawn == manifest.traces == ("ref-1",)


async def test_the_same_steps_give_the_same_lessons(shop: Workshop, recipe: Recipe, tmp_path: Path, base: Path) -> None:
    await learn(shop, recipe)
    again = Workshop(tmp_path / "again", base, fake("works"))
    await learn(again, recipe)

    assert again.lessons_folder().name == shop.lessons_folder().name


async def test_steps_out_of_order_say_what_is_missing(shop: Workshop, recipe: Recipe) -> None:
    with pytest.raises(Refused, match="nothing was collected"):
        shop.make_lessons()
    with pytest.raises(Refused, match="no lessons yet"):
        await shop.train(recipe, lambda _: None)
    with pytest.raises(Refused, match="no adapter yet"):
        shop.newest()


async def test_two_steps_at_once_are_refused(shop: Workshop, tmp_path: Path, base: Path) -> None:
    with shop.alone(), pytest.raises(Refused, match="another process works"), Workshop(tmp_path / "shop", base).alone():
        pass


async def test_a_model_that_fails_gets_repairs(shop: Workshop, recipe: Recipe, tmp_path: Path) -> None:
    await shop.collect(write(0.0), recipe, lambda done, of: None)
    collected = read_lines(tmp_path / "shop/collected.jsonl", Collected)

    sources = {text.source for each in collected for text in each.texts}
    assert sources == {"free", "repair"}
    shop.make_lessons()
    lessons = read_lines(shop.lessons_folder() / TEXTS, BestText)
    assert any(lesson.source == "repair" and lesson.prompt.kinds == ("lowercase",) for lesson in lessons)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps({"prompt": {}}) + "\n")
    with pytest.raises(DamagedFile, match=r"line 1: prompt\.id"):
        read_lines(path, Collected)
