"""The exam: two models answer the same prompts with the same seeds, and the gate judges the differences.

The prompts are those that the split keeps from training, in an order that the recipe's seed shuffles. Some have rules
of the kinds that were trained, the others rules of the kinds that the recipe keeps out. After each look the gate is
asked, and the exam ends as soon as the verdict cannot change for the better: at ``promote``, ``reject``, ``invalid`` or
``broken``, or when all prompts were answered.

One model answers after the other, never both at once: an adapter slows down a batch, and the exam's seconds are not to
depend on that.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from service.concurrency import gather
from service.engines.base import Completion, Engine, Sample, Sampling, Weigh, engine_seed
from service.engines.siblings import sample_siblings
from service.evaluators.text.loops import start_of_loop
from service.learning.gate import Arm, Judgement, Results, Section, judge
from service.learning.prompts import Prompt
from service.learning.recipe import Examining

ALIKE_PROMPTS, ALIKE_TOKENS = 8, 32
"""How many greedy texts show whether the candidate differs from the incumbent."""
AGREES_WITHIN = 0.5
"""By how many nats the trainer's token may be less probable than the engine's favourite."""


class ExamFailed(Exception):
    """The exam could not be held. The message is a sentence for the operator."""


class Reads(Protocol):
    """An engine that says which tokens the model is given."""

    def prompt_ids(self, conversation: Any, prefill: str = "", *, thinking: bool = True) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Paper:
    """The prompts of an exam, shuffled. trained: with trained kinds of rules, or none. other: with the others."""

    trained: Sequence[Prompt]
    other: Sequence[Prompt]

    @property
    def prompts(self) -> Sequence[Prompt]:
        return [*self.trained, *self.other]


@dataclass(frozen=True, slots=True)
class Sat:
    """An exam that was held. looks: how often the gate was asked."""

    results: Results
    judgement: Judgement
    looks: int


def make_paper(prompts: Sequence[Prompt], kept_out: Sequence[str], examining: Examining) -> Paper:
    """The exam's prompts, from those that the split keeps for it. Raises ExamFailed if a part would be empty."""
    draws = random.Random(examining.seed)  # noqa: S311 - nothing secret
    shuffled = sorted((prompt for prompt in prompts if prompt.evaluators), key=lambda prompt: prompt.id)
    draws.shuffle(shuffled)
    other = [prompt for prompt in shuffled if set(prompt.kinds) & set(kept_out)]
    trained = [prompt for prompt in shuffled if not set(prompt.kinds) & set(kept_out)]
    if not trained or not other:
        raise ExamFailed("the exam needs prompts with trained and with other kinds of rules: practise more prompts")
    return Paper(trained[: examining.prompts], other[: examining.prompts])


async def sit(
    incumbent: Engine,
    candidate: Engine,
    paper: Paper,
    examining: Examining,
    *,
    attempt: int,
    agreement: float | None,
    mismatch: str = "",
    on_look: Callable[[int, Judgement], None] = lambda prompts, judgement: None,
) -> Sat:
    """Hold an exam.

    incumbent, candidate: two models of one engine. attempt: see gate.judge. agreement: that of trainer and engine
    (``agree``). on_look: given the number of prompts so far and what the gate says of them.
    """
    differs = await _differ(incumbent, candidate, paper.prompts)
    arms = [_Answers(incumbent, examining), _Answers(candidate, examining)]
    total = max(len(paper.trained), len(paper.other))
    looks = 0
    for start in range(0, total, examining.look):
        end = start + examining.look
        for answers in arms:
            await answers.to("trained", paper.trained[start:end])
            await answers.to("other", paper.other[start:end])
        looks += 1
        results = Results(
            trained=Section(*(answers.arm("trained") for answers in arms)),
            other=Section(*(answers.arm("other") for answers in arms)),
            agreement=agreement,
            differs=differs,
            complete=end >= total,
            mismatch=mismatch,
        )
        judgement = judge(results, margin=examining.margin, attempt=attempt)
        on_look(min(end, total), judgement)
        if judgement.decision != "inconclusive":
            break
    return Sat(results, judgement, looks)


async def agree(engine: Engine, greedy: Path, reads: Reads, prompts: Sequence[Prompt]) -> float | None:
    """On which share of the tokens of the trainer's greedy texts the engine agrees with it; None if there are none.

    Each token is compared given those before it, and may be less probable than the engine's favourite by AGREES_WITHIN:
    the two round differently, and one token that tips the other way changes all that follow.

    prompts: among them those of the texts. Raises ExamFailed if the file is damaged.
    """
    known = {tuple(reads.prompt_ids(prompt.conversation, thinking=False)): prompt for prompt in prompts}
    weighed = await gather(
        engine.call(Weigh(known[ids].conversation, text)) for ids, text in _read_greedy(greedy) if ids in known and text
    )
    tokens = [token for likelihood in weighed for token in likelihood.tokens]
    if not tokens:
        return None
    return fmean(token.logprob >= token.rival_logprob - AGREES_WITHIN for token in tokens)


def _read_greedy(path: Path) -> Sequence[tuple[tuple[int, ...], str]]:
    """The trainer's greedy texts with the tokens of their prompts."""
    try:
        stated: Sequence[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return [(tuple(each["prompt"]), str(each["text"])) for each in stated]
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExamFailed(f"{path} is damaged: {type(error).__name__}") from error


@dataclass
class _Answers:
    """One model's answers, as they come."""

    engine: Engine
    examining: Examining
    _passed: dict[str, list[float]] = field(default_factory=dict)
    _texts: dict[str, list[Completion]] = field(default_factory=dict)

    async def to(self, part: str, prompts: Sequence[Prompt]) -> None:
        """Have the model answer prompts, and verify what it says."""
        done = len(self._passed.setdefault(part, []))
        replies = await gather(self._ask(part, done + number, prompt) for number, prompt in enumerate(prompts))
        for prompt, found in zip(prompts, replies, strict=True):
            self._passed[part].append(fmean(prompt.verify(completion.text).passed for completion in found))
            self._texts.setdefault(part, []).extend(found)

    def arm(self, part: str) -> Arm:
        texts = self._texts.get(part, [])
        bad = [text for text in texts if text.finish_reason != "stop" or not text.text.strip() or _loops(text)]
        tokens = [text.usage.completion_tokens for text in texts]
        return Arm(tuple(self._passed.get(part, ())), len(bad) / max(1, len(texts)), fmean(tokens) if tokens else 0.0)

    async def _ask(self, part: str, number: int, prompt: Prompt) -> Sequence[Completion]:
        seed = engine_seed(self.examining.seed * 1_000_003 + number * 100 + (part == "trained") * 50)
        sampling = Sampling(temperature=self.examining.temperature, max_tokens=self.examining.max_tokens, seed=seed)
        return await sample_siblings(self.engine, Sample(prompt.conversation, sampling), self.examining.samples)


async def _differ(one: Engine, other: Engine, prompts: Sequence[Prompt]) -> bool:
    for engine_prompt in prompts[:ALIKE_PROMPTS]:
        first = await _greedy(one, engine_prompt, ALIKE_TOKENS)
        second = await _greedy(other, engine_prompt, ALIKE_TOKENS)
        if first.text != second.text:
            return True
    return False


async def _greedy(engine: Engine, prompt: Prompt, tokens: int) -> Completion:
    return await engine.call(Sample(prompt.conversation, Sampling(temperature=0.0, max_tokens=tokens)))


def _loops(completion: Completion) -> bool:
    return start_of_loop(completion.text) is not None
