"""What a critic reads before a request."""

from collections.abc import Sequence

import pytest

from service.engines.conversation import Conversation, Turn
from service.refinement.demonstrations import FENCE, Demonstration, Demonstrations, put_before
from service.tasks.task import Task, load_tasks
from tests.support.scripts import PROMPTS

RED = Demonstration(prompt="Name a colour.", own="Red.", reply="Blue.", correct=True)
SEVEN = Demonstration(prompt="Name a number.", own="One.", reply="Green.", correct=False)
DOUBT = ("user", "Doubt? Principles: ")


def said(conversation: Conversation) -> Sequence[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in conversation.turns()]


def test_each_reply_is_shown_as_a_candidate_is_and_has_its_verdict() -> None:
    found = Demonstrations.compile([RED, SEVEN], PROMPTS)

    assert said(found.alone) == [
        ("user", "Name a colour."),
        ("user", f"Reply:\n{FENCE}\nBlue.\n{FENCE}"),
        DOUBT,
        ("assistant", "Yes"),
        ("user", "Name a number."),
        ("user", f"Reply:\n{FENCE}\nGreen.\n{FENCE}"),
        DOUBT,
        ("assistant", "No"),
    ]
    assert said(found.compared)[:5] == [
        ("user", "Name a colour."),
        ("assistant", "Red."),
        ("user", f"Another reply:\n{FENCE}\nBlue.\n{FENCE}"),
        DOUBT,
        ("assistant", "Yes"),
    ]


@pytest.mark.parametrize("system", [[], [Turn("system", "Be brief."), Turn("system", "Be kind.")]])
def test_what_a_request_says_to_the_system_stays_in_front(system: Sequence[Turn]) -> None:
    demonstrations = Demonstrations.compile([RED], PROMPTS).alone
    turns = [*system, Turn("user", "Hello."), Turn("assistant", "Hi.", (7,)), Turn("user", "Name a colour.")]
    request = Conversation(turns[0])
    for turn in turns[1:]:
        request = Conversation(turn, request)

    found = put_before(request, demonstrations)

    assert list(found.turns()) == [*system, *demonstrations.turns(), *turns[len(system) :]]


def test_a_request_without_instructions_extends_the_demonstrations_themselves() -> None:
    """So an engine that keeps what it encoded knows them again."""
    demonstrations = Demonstrations.compile([RED], PROMPTS).alone

    assert put_before(Conversation(Turn("user", "Hello.")), demonstrations).before is demonstrations


@pytest.mark.parametrize("task", load_tasks().values(), ids=lambda task: task.name)
def test_every_task_demonstrates_right_and_wrong_replies(task: Task) -> None:
    verdicts = [turn.text for turn in task.demonstrations.compared.turns() if turn.text in ("Yes", "No")]

    assert sorted(verdicts) == ["No"] * 3 + ["Yes"] * 3
