"""Files of labelled pairs: two formats, and what is said of a line that is neither."""

import json
from typing import Any

import pytest

from service.calibration.pairs import PairsError, built_in_source, read_pairs
from service.tasks.task import load_tasks
from service.wire.requests import CritiqueRequest

PAIR = {"request": "Capital of France?", "right": "Paris.", "wrong": "London."}
LABELLED = {
    "id": "general-en-001",
    "split": "tune",
    "task": "general",
    "language": "en",
    "parameters": {},
    "messages": [{"role": "user", "content": "Capital of France?"}],
    "right": {"text": "Paris."},
    "subtle": {"text": "Lyon.", "fault": "It is Paris.", "keywords": [["paris"]]},
    "plain": {"text": "London.", "fault": "It is Paris.", "keywords": [["paris"]]},
}


def lines(*stated: Any) -> str:
    return "\n".join(json.dumps(line) for line in stated)


def test_a_line_is_a_request_and_two_replies() -> None:
    [pair] = read_pairs(lines({**PAIR, "note": "for people"}) + "\n\n")

    assert (pair.right, pair.wrong) == ("Paris.", "London.")
    assert pair.asked == {"prompt": "Capital of France?", "task": "general", "parameters": {}}


def test_a_line_may_state_a_conversation_and_a_task() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}]
    stated = {"messages": messages, "task": "translate", "parameters": {"target_language": "French"}}

    [pair] = read_pairs(lines({**stated, "right": "Bonjour.", "wrong": "Hola."}))

    assert pair.asked == stated


def test_a_line_of_the_benchmark_gives_two_pairs() -> None:
    pairs = read_pairs(lines(LABELLED))

    assert [(pair.right, pair.wrong) for pair in pairs] == [("Paris.", "Lyon."), ("Paris.", "London.")]
    assert pairs[0].asked["messages"] == LABELLED["messages"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "there is no pair"),
        (lines(PAIR) + "\n{", "line 2 is not JSON"),
        (lines([]), "line 1"),
        (lines({**PAIR, "wrong": 3}), "line 1: wrong: Input should be a valid string"),
        (lines({**PAIR, "messages": [{"role": "user", "content": "a"}]}), "line 1: give exactly one of request and"),
        (lines({"right": "a", "wrong": "b"}), "line 1: give exactly one of request and messages"),
        (lines({**PAIR, "request": " "}), "line 1: request"),
        (lines({**LABELLED, "plain": {}}), "line 1: plain.text: Field required"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(text: str, problem: str) -> None:
    with pytest.raises(PairsError) as raised:
        read_pairs(text)

    assert str(raised.value).startswith(problem)


def test_the_built_in_pairs_are_requests_of_built_in_tasks() -> None:
    pairs = read_pairs(built_in_source())

    assert 12 <= len(pairs) <= 24
    assert len({pair.request for pair in pairs}) == len(pairs)
    assert {pair.task for pair in pairs} <= load_tasks().keys()
    for pair in pairs:
        assert pair.right != pair.wrong
        CritiqueRequest.model_validate_json(json.dumps({**pair.asked, "candidate": pair.right}))
    right, wrong = sum(len(pair.right) for pair in pairs), sum(len(pair.wrong) for pair in pairs)
    assert right == pytest.approx(wrong, rel=0.1)  # length tells nothing
