"""The exam: two models get the same prompts with the same seeds, and the gate judges the differences.

Its parts come one after the other: prompts with the kinds of rules that were trained, with those that the recipe keeps
out, texts to weigh, and the service's loop. The first prompts have a hidden rule each, so that one text is judged by
both. A part is asked look by look, and ends as soon as it has shown what it has to show. The exam ends as soon as the
candidate has failed, and with a part that has not shown it after its last prompt: nothing can be promoted any more.

One model answers after the other, never both at once: an adapter slows down a batch, and the exam's seconds are not to
depend on that.
"""

import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol, TypeVar

from service.concurrency import gather
from service.engines.base import Completion, Engine, Sample, Sampling, Weigh, engine_seed
from service.engines.siblings import sample_siblings
from service.evaluators.text.loops import start_of_loop
from service.learning.gate import Judgement, Part, Results, Texts, judge, shows_enough
from service.learning.paper import ExamFailed, Pair, Paper, Question
from service.learning.prompts import Prompt
from service.learning.recipe import Examining, Refining
from service.learning.refining import Refinement, refine_all

ALIKE_PROMPTS, ALIKE_TOKENS = 8, 32
"""How many greedy texts show whether the candidate differs from the incumbent."""
AGREES_WITHIN = 0.5
"""By how many nats the trainer's token may be less probable than the engine's favourite."""
CLIPPED_AT = 5.0
"""Differences of log-likelihoods count for at most this many margins."""
_SEED_OF = {"trained": 50, "other": 0}

P = TypeVar("P")

OnLook = Callable[[str, int, int, Judgement], None]
"""Given the name of a part, how many of its prompts were answered, of how many, and what the gate says so far."""


class Reads(Protocol):
    """An engine that says which tokens the model is given."""

    def prompt_ids(self, conversation: Any, prefill: str = "", *, thinking: bool = True) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Sat:
    """An exam that was held. refined: what came of the loop's prompts with the incumbent and with the candidate."""

    results: Results
    judgement: Judgement
    refined: tuple[Sequence[Refinement], Sequence[Refinement]]


async def sit(
    incumbent: Engine,
    candidate: Engine,
    paper: Paper,
    examining: Examining,
    *,
    attempt: int,
    agreement: float | None,
    on_look: OnLook = lambda part, done, of, judgement: None,
) -> Sat:
    """Hold an exam.

    incumbent, candidate: two models of one engine. attempt: see gate.judge. agreement: that of trainer and engine
    (``agree``).
    """
    sitting = _Sitting(
        arms=(_Arm(incumbent, examining), _Arm(candidate, examining)),
        examining=examining,
        attempt=attempt,
        agreement=agreement,
        differs=await _differ(incumbent, candidate, paper.prompts),
        on_look=on_look,
    )
    samples = examining.samples
    stated = ("trained", "hidden") if examining.hidden else ("trained",)
    await sitting.ask(stated, paper.trained, lambda arm, asked: arm.draft("trained", asked, samples))
    await sitting.ask(("other",), paper.other, lambda arm, asked: arm.draft("other", asked, samples))
    await sitting.ask(("plain",), paper.plain, lambda arm, pairs: arm.weigh(pairs))
    if refining := examining.refine:
        await sitting.ask(("refine",), paper.refine, lambda arm, prompts: arm.refine(prompts, refining))
    return sitting.end()


async def agree(engine: Engine, greedy: Path, reads: Reads, prompts: Sequence[Prompt]) -> float | None:
    """On which share of the tokens of the trainer's greedy texts the engine agrees with it; None if there are none, and
    0 if the engine gives none of their prompts the tokens that the trainer gave it.

    Each token is compared given those before it, and may be less probable than the engine's favourite by AGREES_WITHIN:
    the two round differently, and one token that tips the other way changes all that follow.

    prompts: among them those of the texts. Raises ExamFailed if the file is damaged.
    """
    texts = [(ids, text) for ids, text in _read_greedy(greedy) if text]
    known = {tuple(reads.prompt_ids(prompt.conversation, thinking=False)): prompt for prompt in prompts}
    weighed = await gather(engine.call(Weigh(known[ids].conversation, text)) for ids, text in texts if ids in known)
    tokens = [token for likelihood in weighed for token in likelihood.tokens]
    if not tokens:
        return 0.0 if texts else None
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
class _Arm:
    """What one model answers, as it comes. scores: for each prompt of a part, by the names of the parts."""

    engine: Engine
    examining: Examining
    scores: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refined: list[Refinement] = field(default_factory=list)
    texts: Texts = field(default_factory=Texts)

    async def draft(self, part: str, questions: Sequence[Question], samples: int) -> None:
        """Have the model answer more questions of a part, and verify what it says."""
        done = len(self.scores[part])
        replies = await gather(
            self._draft(part, number, question.prompt, samples) for number, question in enumerate(questions, done)
        )
        for question, found in zip(questions, replies, strict=True):
            self._score(part, question.prompt, found)
            if question.hidden is not None:
                self._score("hidden", question.hidden, found)
            self.texts = self.texts.with_drafts(len(found), sum(map(_is_bad, found)), sum(map(_tokens, found)))

    async def weigh(self, pairs: Sequence[Pair]) -> None:
        """Ask the model how probable the replies are."""
        weighed = await gather(self.engine.call(Weigh(pair.conversation, pair.reply)) for pair in pairs)
        self.scores["plain"].extend(fmean(likelihood.logprobs) for likelihood in weighed)

    async def refine(self, prompts: Sequence[Prompt], refining: Refining) -> None:
        """Have the service's loop refine texts, with the model in all roles."""
        self.refined += await refine_all(self.engine, prompts, self.examining, refining, first=len(self.refined))
        self.scores["refine"] = [float(each.passed) for each in self.refined]

    def _score(self, part: str, prompt: Prompt, found: Sequence[Completion]) -> None:
        self.scores[part].append(fmean(prompt.verify(completion.text).passed for completion in found))

    async def _draft(self, part: str, number: int, prompt: Prompt, samples: int) -> Sequence[Completion]:
        seed = engine_seed(self.examining.seed * 1_000_003 + number * 100 + _SEED_OF[part])
        sampling = Sampling(temperature=self.examining.temperature, max_tokens=self.examining.max_tokens, seed=seed)
        return await sample_siblings(self.engine, Sample(prompt.conversation, sampling), samples)


@dataclass(kw_only=True)
class _Sitting:
    """An exam that is being held, with the gate's judgement so far."""

    arms: tuple[_Arm, _Arm]
    examining: Examining
    attempt: int
    agreement: float | None
    differs: bool
    on_look: OnLook
    _may_pass: bool = True
    _results: Results = field(init=False)
    _judgement: Judgement = field(default_factory=lambda: Judgement("inconclusive"))

    async def ask(
        self, parts: Sequence[str], prompts: Sequence[P], answer: Callable[[_Arm, Sequence[P]], Awaitable[None]]
    ) -> None:
        """Ask one or two parts, until they have shown what they have to show or the candidate has failed."""
        look, total = self.examining.look, len(prompts)
        if not self._may_pass or not prompts:
            return
        for start in range(0, total, look):
            for arm in self.arms:
                await answer(arm, prompts[start : start + look])
            self._look()
            self.on_look(parts[0], min(start + look, total), total, self._judgement)
            if self._judgement.decision not in ("promote", "inconclusive"):
                break
            if all(shows_enough(part, self._results.parts[part], attempt=self.attempt) for part in parts):
                return
        self._may_pass = False

    def end(self) -> Sat:
        before, after = self.arms
        self._look(complete=True)
        return Sat(self._results, self._judgement, (before.refined, after.refined))

    def _look(self, *, complete: bool = False) -> None:
        before, after = self.arms
        others = {name: self._part(name) for name in before.scores if name != "trained"}
        incumbent, candidate = before.texts, after.texts
        refined = [*before.refined, *after.refined]
        self._results = Results(
            trained=self._part("trained"),
            others=others,
            incumbent=incumbent,
            candidate=candidate,
            failed=sum(each.failed for each in refined) / max(1, len(refined)),
            agreement=self.agreement,
            differs=self.differs,
            complete=complete,
        )
        self._judgement = judge(self._results, attempt=self.attempt)

    def _part(self, name: str) -> Part:
        before, after = (tuple(arm.scores[name]) for arm in self.arms)
        margin = self.examining.margins.get(name, 0.0)
        if name == "plain":
            return Part(before, after, margin, CLIPPED_AT * margin, "nats")
        return Part(before, after, margin)


async def _differ(one: Engine, other: Engine, prompts: Sequence[Prompt]) -> bool:
    for prompt in prompts[:ALIKE_PROMPTS]:
        first = await _greedy(one, prompt, ALIKE_TOKENS)
        second = await _greedy(other, prompt, ALIKE_TOKENS)
        if first.text != second.text:
            return True
    return False


async def _greedy(engine: Engine, prompt: Prompt, tokens: int) -> Completion:
    return await engine.call(Sample(prompt.conversation, Sampling(temperature=0.0, max_tokens=tokens)))


def _is_bad(draft: Completion) -> bool:
    return draft.finish_reason != "stop" or not draft.text.strip() or start_of_loop(draft.text) is not None


def _tokens(draft: Completion) -> int:
    return draft.usage.completion_tokens
