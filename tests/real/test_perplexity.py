"""What the embedded model's own probabilities make of good and bad texts."""

import random

from service.engines.conversation import Conversation, Turn
from service.engines.local.vllm import VllmEngine
from service.evaluators.base import Submission
from service.evaluators.model.perplexity import Perplexity
from tests.evaluators.model.test_judge import Plain

PARAGRAPH = (
    "Thank you for your letter of 3 March. We have looked into the delay and found that your parcel was sent to the "
    "wrong depot. A replacement left our warehouse this morning and should reach you by Thursday. We are sorry for the "
    "trouble this has caused and have refunded the cost of postage."
)


async def fluency(engine: VllmEngine, text: str) -> float:
    request = Conversation(Turn("user", "Why is my parcel late?"))
    found = await Perplexity().evaluate(
        Submission(text=text, request=request, shown=request, judge_prompt=Plain(), engine=engine)
    )
    assert found.score is not None
    assert found.stderr is not None
    assert 0 < found.stderr < 0.2
    return found.score


async def test_prose_is_told_from_disorder_from_letters_and_from_loops(engine: VllmEngine) -> None:
    order = random.Random(0)
    words = PARAGRAPH.split()
    letters = "".join(order.choice("abcdefghijklmnopqrstuvwxyz   ") for _ in range(280))

    assert await fluency(engine, PARAGRAPH) > 0.8
    assert await fluency(engine, " ".join(order.sample(words, len(words)))) < 0.4
    assert await fluency(engine, letters) < 0.05
    assert await fluency(engine, "We are sorry for the delay. " * 12) < 0.15
