"""The labelled set keeps its format, and its splits stay apart."""

from collections import Counter

import pytest
from pydantic import ValidationError

from bench.critic.labels import KINDS, Item, Labels, Wrong, load_labels
from service.programs.compile import Programs, RequestLimits
from service.programs.models import ServedModels
from service.tasks.task import load_tasks
from service.wire.requests import CritiqueRequest

LABELS = load_labels()
TASKS = load_tasks()


def test_every_task_has_requests_in_both_languages() -> None:
    count = Counter((item.task, item.language) for item in LABELS.items)

    assert {task for task, _ in count} == set(TASKS)
    assert all(count[task, language] >= 6 for task in TASKS for language in ("en", "zh"))
    assert sum(number for (_, language), number in count.items() if language == "en") >= 240
    assert sum(number for (_, language), number in count.items() if language == "zh") >= 60


def test_ids_are_unique() -> None:
    ids = [*(item.id for item in LABELS.items), *(pair.id for pair in LABELS.pairs)]

    assert len(set(ids)) == len(ids)


def test_a_third_is_held() -> None:
    held = LABELS.of("held")

    assert len(LABELS.items) == 3 * len(held.items)
    assert {item.id for item in held.items}.isdisjoint(item.id for item in LABELS.of("tune").items)


def test_no_two_requests_of_a_task_are_alike() -> None:
    asked = Counter(
        (item.task, *(message.content for message in item.messages), *item.parameters.values()) for item in LABELS.items
    )

    assert [request for request, count in asked.items() if count > 1] == []


@pytest.mark.parametrize("item", LABELS.items, ids=lambda item: item.id)
def test_the_replies_to_a_request_differ(item: Item) -> None:
    assert len({item.text(kind) for kind in KINDS}) == 3


async def test_every_request_is_one_that_the_service_takes() -> None:
    programs = Programs(TASKS, RequestLimits(8, 8, 2048, 600.0), ServedModels(("model",)))

    for item in LABELS.items:
        messages = [{"role": message.role, "content": message.content} for message in item.messages]
        request = {
            "task": item.task,
            "parameters": dict(item.parameters),
            "messages": messages,
            "candidate": item.right.text,
        }
        assert programs.compile(CritiqueRequest.model_validate(request)).task == item.task


def test_the_fault_in_words_names_itself() -> None:
    labels = [label for item in LABELS.items for label in (item.subtle, item.plain)]
    named = [label for label in labels if label.is_named_by(label.fault)]

    assert len(named) >= 0.9 * len(labels)


def test_a_critique_names_a_fault_by_a_word_of_every_list() -> None:
    label = Wrong(text="London.", fault="It is Paris.", keywords=(("paris", "london"), ("capital",)))

    assert label.is_named_by("The CAPITAL is Paris.")
    assert not label.is_named_by("The capital is wrong.")
    assert not label.is_named_by("It is Paris.")


def test_a_line_of_another_form_is_refused() -> None:
    with pytest.raises(ValidationError):
        Wrong(text="London.", fault="It is Paris.", keywords=())


def test_every_nth_takes_as_much_of_items_as_of_pairs() -> None:
    some = LABELS.every(2)

    assert (len(some.items), len(some.pairs)) == ((len(LABELS.items) + 1) // 2, (len(LABELS.pairs) + 1) // 2)
    assert Labels().every(2) == Labels((), ())
