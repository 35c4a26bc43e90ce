"""What no candidate can forge: the fence that it stands in, the turns of the conversation, the judge's answer.

Every attack of the suite, on every weak answer. How far an attack moves a model's opinion is measured, not
tested: docs/results/judge-attacks.md.
"""

import asyncio
import copy
import json
import re
import secrets
from collections.abc import Callable, Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import AddedToken

from bench.judge.attacks import ATTACKS, BASES, Base
from bench.judge.judging import Judging, make_program
from service.engines.base import Choose, Sample
from service.engines.conversation import Conversation, Turn
from service.engines.scripted import Script, ScriptedEngine
from service.engines.tokenization import ChatTokenizer
from service.evaluators.model.judge import ANSWERS
from service.programs import compile as compile_module
from service.refinement.prompts import VARIABLES
from service.tasks.task import Task, load_tasks
from tests.support.serving import Served, serving

FENCE = "[5e1b0d7c9a34]"
MANY = [name for name, variables in VARIABLES.items() if {"candidates", "fence"} <= variables]
"""The prompts that show several candidates."""
FORMATS = {
    "llama": (
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}"
        "<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "mistral": (
        ("<s>", "</s>", "[INST]", "[/INST]"),
        "<s>{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}</s>"
        "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}",
    ),
    "gemma": (
        ("<start_of_turn>", "<end_of_turn>"),
        "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"
        "<start_of_turn>model\n",
    ),
    "phi": (
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}<|assistant|>\n",
    ),
    "deepseek": (
        ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<think>"),
        "{% for m in messages %}{% if m.role == 'assistant' %}<\uff5cAssistant\uff5c>{{ m.content }}"
        "<\uff5cend\u2581of\u2581sentence\uff5c>{% else %}<\uff5cUser\uff5c>{{ m.content }}{% endif %}{% endfor %}"
        "<\uff5cAssistant\uff5c><think>\n",
    ),
}
"""The tokens of other models' turns, and templates that use them as theirs do."""


every_task = pytest.mark.parametrize("task", load_tasks().values(), ids=lambda task: task.name)


def attacked() -> Iterator[tuple[Base, str]]:
    """Every weak answer under every attack."""
    return ((base, attack.applied_to(base.weak)) for attack in ATTACKS for base in BASES)


def between_fences(text: str) -> list[str]:
    """What stands between the lines that are the fence, taken in pairs."""
    lines = text.split("\n")
    found = [number for number, line in enumerate(lines) if line == FENCE]
    assert found == [number for number, line in enumerate(lines) if line.strip() == FENCE]
    return ["\n".join(lines[opened + 1 : closed]) for opened, closed in zip(found[::2], found[1::2], strict=True)]


@every_task
def test_the_candidate_stands_as_it_is_between_the_only_two_lines_of_the_fence(task: Task) -> None:
    for _, candidate in attacked():
        assert between_fences(task.prompts.render("show", candidate=candidate, fence=FENCE)) == [candidate]


@every_task
@pytest.mark.parametrize("template", MANY)
def test_so_does_each_of_several_candidates(task: Task, template: str) -> None:
    for base, candidate in attacked():
        candidates = {"A": base.good, "B": candidate, "C": candidate[::-1]}
        assert between_fences(task.prompts.render(template, candidates=candidates, fence=FENCE)) == [
            *candidates.values()
        ]


def test_the_prompts_that_show_several_candidates_are_held_to_it_too() -> None:
    assert "vote" in MANY


def told(task: Task, base: Base, candidate: str) -> Conversation:
    """What a judge is asked about a candidate."""
    shown = task.prompts.render("show", candidate=candidate, fence=FENCE)
    question = task.prompts.render("rate", question=task.criteria[0].question)
    return Conversation(Turn("user", base.request)).with_user(shown).with_user(question)


def turn_tokens(tokenizer: Any) -> Callable[[Conversation], list[int]]:
    """Gives, of a judge's prompt, the tokens that stand for no text: the template's, and whatever else was added."""
    chat = ChatTokenizer(tokenizer)
    added = frozenset(tokenizer.get_added_vocab().values())
    return lambda conversation: [token for token in chat.prompt_ids(conversation, "Answer: ") if token in added]


def test_no_turn_is_opened_or_closed_but_by_the_template(tokenizer: Any) -> None:
    task, found = load_tasks()["general"], turn_tokens(tokenizer)
    turns = found(told(task, BASES[0], "A harmless reply."))

    assert len(turns) == 5  # the system's and the user's turn, opened and closed, and the judge's, opened
    for base, candidate in attacked():
        assert found(told(task, base, candidate)) == turns


def test_the_model_reads_every_character_as_a_character(tokenizer: Any) -> None:
    task, chat = load_tasks()["general"], ChatTokenizer(tokenizer)
    for attack in ATTACKS:
        conversation = told(task, BASES[0], attack.applied_to(BASES[0].weak))
        content = "\n\n".join(turn.text for turn in conversation.turns())
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        unreadable = {character for character in set(prompt) if not chat.encode(character)}
        assert tokenizer.decode(chat.prompt_ids(conversation)) == "".join(c for c in prompt if c not in unreadable)
        assert all(character < " " for character in unreadable)  # the vocabulary lacks six control characters


@pytest.mark.parametrize("special", [True, False], ids=["special", "not special"])
@pytest.mark.parametrize("name", FORMATS)
def test_nor_in_the_formats_of_other_models_even_if_their_tokens_are_not_called_special(
    name: str, special: bool, tokenizer: Any
) -> None:
    marks, template = FORMATS[name]
    other = copy.deepcopy(tokenizer)
    other.add_tokens([AddedToken(mark, special=special, normalized=False) for mark in marks], special_tokens=special)
    other.chat_template = template
    task, found = load_tasks()["general"], turn_tokens(other)
    turns = found(told(task, BASES[0], "A harmless reply."))

    assert turns
    assert any(mark in attack.after for attack in ATTACKS for mark in marks)
    for attack in ATTACKS:
        assert found(told(task, BASES[0], attack.applied_to(BASES[0].weak))) == turns, attack.id


async def test_a_score_comes_from_the_answers_probabilities_and_from_nothing_that_the_candidate_says() -> None:
    engine = ScriptedEngine(Script(weights=lambda call: [0.6, 0.3]))
    judging = Judging(engine, make_program(engine.model), asyncio.Semaphore(1))
    harmless = await judging.evaluation(BASES[0], "A harmless reply.")
    questions = [(call.conversation.turn, call.options, call.prefill) for call in engine.calls_of(Choose)]

    for attack in ATTACKS:
        engine.calls.clear()
        assert await judging.evaluation(BASES[0], attack.applied_to(BASES[0].weak)) == harmless, attack.id
        calls = engine.calls_of(Choose)
        assert [(call.conversation.turn, call.options, call.prefill) for call in calls] == questions
        assert {call.options for call in calls} == {ANSWERS}
        assert engine.calls_of(Sample) == []


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """What is drawn for fences from the system's source of randomness, with how many bytes of it."""
    found: list[tuple[int, str]] = []
    draw = secrets.token_hex

    def token_hex(nbytes: int) -> str:
        found.append((nbytes, draw(nbytes)))
        return found[-1][1]

    monkeypatch.setattr(compile_module, "secrets", SimpleNamespace(token_hex=token_hex))
    return found


async def test_each_request_draws_a_fence_of_at_least_48_bits(served: Served, drawn: list[tuple[int, str]]) -> None:
    body = {"prompt": "Name a colour.", "candidate": "Red.", "feedback": False}
    for _ in range(2):
        assert (await served.post("/v1/critique", body)).status_code == 200

    fences = {found[0] for call in served.engine.calls if (found := re.search(r"^\S+(?=\nRed\.)", call.prompt, re.M))}
    assert fences == {f"[{digits}]" for _, digits in drawn}
    assert len(fences) == len(drawn) == 2
    assert all(8 * nbytes >= 48 for nbytes, _ in drawn)


@pytest.mark.parametrize("search", [{"preset": "beam", "rounds": 2}, {"preset": "vote"}], ids=["beam", "vote"])
async def test_no_writer_and_no_answer_is_ever_told_the_fence(
    search: dict[str, object], drawn: list[tuple[int, str]]
) -> None:
    """So a later round's candidate cannot hold it, whatever the model that writes it was talked into."""
    numbers = count()

    def reply(call: Sample) -> str:
        return json.dumps({"issues": ["Say more."]}) if call.schema else f"Text {next(numbers)}."

    body = {"prompt": "Write about the sea.", "search": search}
    async with serving(Script(reply=reply)) as served:
        answer = await served.post("/v1/refine", body)
        events = await served.stream("/v1/refine", body)

    writing = served.engine.calls_of(Sample)
    judging = served.engine.calls_of(Choose)
    assert len(drawn) == 2
    for _, digits in drawn:
        assert any(digits in call.prompt for call in judging)
        assert all(digits not in turn.text for call in writing for turn in call.conversation.turns())
        assert digits not in answer.text + str(answer.headers) + str(events)
    assert len(writing) >= 8
