"""A speculating engine, in a process of its own because a process holds one vLLM engine.

``python -m tests.real.speculating`` prints, as JSON, what its judge says of one question, a text of its own, and
a text under a grammar.
"""

import asyncio
import json
from dataclasses import asdict

from service.engines.base import Choose, Sample, Sampling
from service.engines.conversation import Conversation, Turn
from service.fleet import start_engine
from service.settings import Settings

NGRAM = {"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_min": 2, "prompt_lookup_max": 4}
RATING = Conversation(Turn("user", "Rate from 1 to 5 how blue the sky is. Answer with one digit."), None)
LEAD = "Rating: "
DIGITS = ("1", "2", "3", "4", "5")
COUNTED = 'start: (WORD " "){11} WORD "."\nWORD: /[a-z]{1,12}/ & ~/four/\n'
REPETITION = Conversation(Turn("user", "Repeat: one two three four five six seven"), None)


async def main() -> None:
    engine = await start_engine(Settings(engine_args={"speculative_config": NGRAM}))
    try:
        choice = await engine.call(Choose(RATING, DIGITS, prefill=LEAD))
        completion = await engine.call(Sample(REPETITION, Sampling(max_tokens=40)))
        shaped = await engine.call(Sample(REPETITION, Sampling(temperature=0.0, max_tokens=40), grammar=COUNTED))
    finally:
        await engine.close()
    print(json.dumps({"logprobs": choice.logprobs, "text": completion.text, "shaped": asdict(shaped)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
