"""What the page says of pipelines follows from their answers."""

from collections.abc import Iterator
from datetime import date

import pytest

from bench.learning.asking import Answer, Model, Origin, Way
from bench.learning.report import page
from bench.scenarios.adapters import Outcome
from service.learning.gate import Decision
from service.learning.manifest import Manifest
from tests.support.adapters import make_manifest, make_verdict

ORIGIN = Origin("base", "quick", "abc")
DAY = date(2026, 11, 30)


def answers(seed: int, model: Model, way: Way, passed: int, *, of: int = 20, tokens: int = 50) -> Iterator[Answer]:
    """``passed`` of the texts pass, and these follow both of their rules."""
    for number in range(of):
        good = number < passed
        kinds = {} if way == "refined" else {"lowercase": good, "rare": good} if number < 5 else {"lowercase": good}
        yield Answer(seed, f"p{number:02}", model, way, good, tokens, kinds)


def pipeline(seed: int, gained: int, tokens: int) -> list[Answer]:
    return [
        *answers(seed, "base", "greedy", 4),
        *answers(seed, "adapter", "greedy", 4 + gained),
        *answers(seed, "base", "sampled", 4),
        *answers(seed, "adapter", "sampled", 4 + gained),
        *answers(seed, "base", "refined", 10, tokens=100),
        *answers(seed, "adapter", "refined", 10, tokens=tokens),
    ]


def examined(decision: Decision) -> Manifest:
    verdict = make_verdict(decision, "").model_copy(
        update={
            "figures": {
                "trained.prompts": 20, "trained.incumbent.passed": 0.2, "trained.candidate.passed": 0.4,
                "trained.gain": 0.2, "trained.gain.low": 0.1, "trained.gain.high": 0.3, "trained.margin": 0.0,
            }
        }
    )  # fmt: skip
    return make_manifest("a", verdicts=(verdict,))


def made(gained: int = 6, tokens: int = 70, decision: Decision = "promote") -> str:
    found = [*pipeline(0, gained, tokens), *pipeline(1, gained, tokens)]
    outcome = Outcome("noise", "b", "reject", ["not better"], {})
    return page({0: examined("promote"), 1: examined(decision)}, found, [outcome], ORIGIN, DAY, seeds=(0, 1))


def test_a_gain_that_reaches_every_bar() -> None:
    text = made()
    assert "| sampled drafts gain ≥ 10 points | +30.0 (" in text
    assert "| every verdict is `promote` | promote, promote | yes |" in text
    assert "| tokens for each refined text that passes ≤ 0.8 of the base's | 0.70 | yes |" in text
    assert "**no**" not in text
    assert "| all | sampled | 40 | 20.0% | 50.0% | +30.0 (" in text
    assert "| 1 | 20 | 50% | 50% | 200 | 140 | 0.70 |" in text
    assert "| lowercase | 40 | 20% | 50% | +30.0 (" in text
    assert "| rare | 10 | " in text
    assert "| noise | `reject` | not better |" in text
    assert "Not examined: hidden rules, other kinds of rules, texts without rules, refined texts." in text


def test_a_gain_that_reaches_no_bar() -> None:
    text = made(gained=0, tokens=100, decision="reject")
    assert text.count("**no**") == 6
    assert "| every verdict is `promote` | promote, reject | **no** |" in text


def test_pipelines_that_one_model_has_not_answered_are_left_out() -> None:
    found = [*pipeline(0, 6, 70), *answers(1, "base", "sampled", 4)]
    text = page({0: examined("promote"), 1: examined("promote")}, found, [], ORIGIN, DAY, seeds=(0, 1, 2))
    assert "followed\n1 times" in text
    assert "| all | sampled | 20 |" in text
    assert "\nNot run.\n" in text
    with pytest.raises(ValueError, match="no pipeline has answers of both models"):
        page({1: examined("promote")}, found, [], ORIGIN, DAY, seeds=(0, 1))


def test_kinds_with_few_texts_have_no_row() -> None:
    text = page({0: examined("promote")}, pipeline(0, 6, 70), [], ORIGIN, DAY, seeds=(0,))
    assert "| lowercase | 20 |" in text
    assert "| rare |" not in text
