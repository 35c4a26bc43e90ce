"""Fluency from log-probabilities that a script gives; tests/real/test_perplexity.py has a model's own."""

import json
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from service.engines.base import Usage, Weigh
from service.engines.conversation import Conversation, Turn
from service.engines.scripted import Script, ScriptedEngine
from service.errors import EngineDead
from service.evaluators.base import Evaluation, Submission
from service.evaluators.model.perplexity import MOST_CHARACTERS, NEUTRAL_REQUEST, PIECE_CHARACTERS, Perplexity
from service.evaluators.toolbox import Toolbox
from service.refinement.accounting import BudgetSpent, Ledger, MeteredEngine
from service.refinement.program import Budget
from tests.evaluators.model.test_judge import Plain

REQUEST = Conversation(Turn("user", "Name a colour."))
SENTENCE = "She closed the window because the wind had scattered her papers over the floor."


async def evaluated(
    text: str,
    likelihood: Callable[[Weigh, str], float] = lambda call, token: math.exp(-0.6 * len(token)),
    *,
    engine: ScriptedEngine | None = None,
    stated: Perplexity | None = None,
) -> Evaluation:
    """By default a character costs 0.6 nats."""
    engine = engine or ScriptedEngine(Script(likelihood=likelihood))
    submission = Submission(text=text, request=REQUEST, shown=REQUEST, judge_prompt=Plain(), engine=engine)
    return await (stated or Perplexity()).resolve(Toolbox()).evaluate(submission)


@pytest.mark.parametrize(("nats", "score"), [(0.6, 1 / (1 + 0.5**4)), (1.2, 0.5), (2.4, 1 / 17)])
async def test_the_score_falls_with_the_nats_for_each_byte(nats: float, score: float) -> None:
    found = await evaluated("one two three four five six seven", lambda call, token: math.exp(-nats * len(token)))

    assert found.score == pytest.approx(score)


async def test_the_midpoint_is_the_rate_that_scores_one_half() -> None:
    assert (await evaluated(SENTENCE, stated=Perplexity(midpoint=0.6))).score == pytest.approx(0.5)


async def test_the_least_midpoint_can_be_reckoned_with() -> None:
    found = await evaluated("a b c d e f g", lambda call, token: 0.0, stated=Perplexity(midpoint=0.01))

    assert found.score == pytest.approx(0.0)


async def test_bytes_count_and_not_characters() -> None:
    text = "Ö" * 5 + " " + "ä" * 5 + " ü ö ß"  # 29 bytes

    found = await evaluated(text, lambda call, token: math.exp(-1.2 * len(token.encode())))

    assert found.score == pytest.approx(0.5)


async def test_a_text_twice_as_long_scores_the_same_with_a_smaller_error() -> None:
    def likelihood(weigh: Weigh, token: str) -> float:
        return math.exp(-0.8 * len(token)) if len(token) % 2 else math.exp(-0.4 * len(token))

    words = [f"{first}{second}" for first in "abcdefghij" for second in ("moon", "stone", "bridge")]
    short = await evaluated(" ".join(words), likelihood)
    long = await evaluated(" ".join([*words, *(word.upper() for word in words)]), likelihood)

    assert short.score is not None
    assert short.stderr is not None
    assert long.score == pytest.approx(short.score, abs=0.01)
    assert long.stderr == pytest.approx(short.stderr / math.sqrt(2), rel=0.05)


async def test_the_standard_error_is_the_mean_s_by_the_slope_of_the_formula() -> None:
    probabilities = iter([0.5, 0.1, 0.02, 0.3, 0.004, 0.2])
    text = "one two three four five six"
    logprobs = [math.log(p) for p in (0.5, 0.1, 0.02, 0.3, 0.004, 0.2)]
    mean = math.fsum(logprobs) / 6
    error = math.sqrt(math.fsum((x - mean) ** 2 for x in logprobs) / 5 / 6)

    found = await evaluated(text, lambda call, token: next(probabilities))

    def score(mean: float) -> float:
        return 1 / (1 + (-mean * 6 / len(text) / 1.2) ** 4)

    slope = (score(mean + 1e-6) - score(mean - 1e-6)) / 2e-6
    assert found.score == pytest.approx(score(mean))
    assert found.stderr == pytest.approx(error * slope, rel=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        "The sky is blue. " * 20,
        "good " * 60,
        " ".join("a" * 200),
        "... " * 60,
        "天空 是 蓝色 的。 " * 20,
        "\n".join(f"{number}. The sky is blue." for number in range(1, 30)),
    ],
)
async def test_a_loop_scores_near_nothing_however_well_it_is_predicted(text: str) -> None:
    found = await evaluated(text, lambda call, token: 0.99)

    assert found.score is not None
    assert found.score < 0.12


async def test_a_text_that_ends_in_a_loop_loses_its_share() -> None:
    found = await evaluated(SENTENCE + " I hope this helps." * 8, lambda call, token: 0.99)

    assert found.score is not None
    assert 0.3 < found.score < 0.6


async def test_a_text_without_repeats_loses_nothing() -> None:
    found = await evaluated(SENTENCE, lambda call, token: 0.99)

    assert found.score == pytest.approx(1.0, abs=1e-6)


async def test_what_the_model_takes_for_impossible_does_not_outweigh_the_rest() -> None:
    once = await evaluated(SENTENCE, lambda call, token: 0.0 if token == " wind" else math.exp(-0.6 * len(token)))

    assert once.score is not None
    assert once.stderr is not None
    assert once.score > 0.6
    assert math.isfinite(once.stderr)


@pytest.mark.parametrize("text", ["", "  \n", "Red.", "Red, green and blue."])
async def test_too_short_a_text_gets_no_opinion(text: str) -> None:
    found = await evaluated(text)

    assert (found.score, found.stderr, found.error) == (None, None, None)


async def test_the_request_plays_no_part() -> None:
    engine = ScriptedEngine()

    await evaluated(f"  {SENTENCE}\n", engine=engine)

    assert [(weigh.prompt, weigh.reply) for weigh in engine.calls_of(Weigh)] == [(NEUTRAL_REQUEST, SENTENCE)]


async def test_a_long_text_is_weighed_in_pieces_that_keep_words_whole_and_the_rest_is_not_read() -> None:
    numbers = random.Random(0)
    words = [str(numbers.randrange(10**9)) for _ in range(3000)]
    text = " ".join(words)
    assert len(text) > MOST_CHARACTERS + 1000
    engine = ScriptedEngine()

    await evaluated(text, engine=engine)

    pieces = [weigh.reply for weigh in engine.calls_of(Weigh)]
    assert "".join(pieces) == text[:MOST_CHARACTERS]
    assert max(map(len, pieces)) <= PIECE_CHARACTERS
    assert {word for piece in pieces[:-1] for word in piece.split()} <= set(words)


async def test_a_word_without_an_end_is_cut() -> None:
    engine = ScriptedEngine()

    await evaluated("x" * 4500, engine=engine)

    assert [len(weigh.reply) for weigh in engine.calls_of(Weigh)] == [2000, 2000, 500]


@given(st.text(max_size=300), st.floats(0.0, 1.0))
async def test_a_score_is_on_the_scale(text: str, probability: float) -> None:
    found = await evaluated(text, lambda call, token: probability)

    if found.score is not None:
        assert found.stderr is not None
        assert 0.0 <= found.score <= 1.0
        assert 0.0 <= found.stderr < math.inf


async def test_an_evaluation_says_that_it_is_an_opinion() -> None:
    found = await evaluated(SENTENCE, stated=Perplexity(weight=2.0))

    assert (found.evaluator, found.authority, found.hard, found.passed) == ("perplexity", "judge", False, None)
    assert (found.weight, found.issues, found.criteria) == (2.0, (), ())


async def test_each_piece_is_a_call_that_is_accounted_for_and_held_to_the_budget() -> None:
    ledger = Ledger(Budget(deadline=math.inf, calls=3), lambda event: None)
    engine = MeteredEngine(ScriptedEngine(), "judge", ledger)
    submission = Submission(text="moon " * 700, request=REQUEST, shown=REQUEST, judge_prompt=Plain(), engine=engine)

    await Perplexity().evaluate(submission)

    # "<user>" and three words, and the words of each piece; one token is written.
    assert ledger.usage == {"judge": Usage(calls=2, prompt_tokens=2 * 4 + 700, completion_tokens=2)}
    with pytest.raises(BudgetSpent):
        await Perplexity().evaluate(submission)


async def test_a_dead_engine_is_no_opinion() -> None:
    engine = ScriptedEngine()
    engine.kill()

    with pytest.raises(EngineDead):
        await evaluated(SENTENCE, engine=engine)


@pytest.mark.parametrize(
    "fields", [{"midpoint": 0}, {"midpoint": 0.009}, {"midpoint": 11}, {"midpoint": "1"}, {"hard": True}, {"weight": 0}]
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Perplexity).validate_json(json.dumps({"type": "perplexity", **fields}))
