"""Has the base and an adapter answer prompts that the adapter's exam may ask, and keeps what each text follows.

The texts are other ones than the exam's: their seeds differ. Each is verified rule by rule.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from bench.harness.results import Results
from service.concurrency import gather
from service.engines.base import Completion, Engine, Sample, Sampling, engine_seed
from service.learning.manifest import Manifest
from service.learning.paper import Paper
from service.learning.prompts import Prompt
from service.learning.refining import Refinement, refine_all

Model = Literal["base", "adapter"]
MODELS: Sequence[Model] = get_args(Model)
Way = Literal["greedy", "sampled", "refined"]
_SEED = 7_000_000
"""Far from the seeds of an exam."""
_FIRST_REFINED = 1_000
"""The number of the first prompt that is refined, beyond those of an exam, so that its seeds are others too."""


@dataclass(frozen=True)
class Origin:
    """What the answers of a file have in common."""

    model: str
    recipe: str
    commit: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A text for a prompt. seed: of the pipeline. tokens: all that were spent. followed: by the kinds of the prompt's
    rules; empty for a refined text."""

    seed: int
    prompt: str
    model: Model
    way: Way
    passed: bool
    tokens: int
    followed: Mapping[str, bool]


@dataclass(frozen=True)
class Questions:
    """What both models of a pipeline are asked. prompts: for single drafts, with trained kinds of rules and, as in the
    exam, a hidden rule that does not count here. refined: for the service's loop, with rules of all kinds."""

    seed: int
    manifest: Manifest
    prompts: Sequence[Prompt]
    refined: Sequence[Prompt]


def choose_questions(seed: int, manifest: Manifest, paper: Paper, *, prompts: int, refined: int) -> Questions:
    """The first prompts of a paper."""
    return Questions(seed, manifest, [each.prompt for each in paper.trained[:prompts]], paper.refine[:refined])


def missing_models(seed: int, results: Results[Origin, Answer]) -> Sequence[Model]:
    """The models of a pipeline that have not answered yet."""
    known = {each.model for each in results.read() if each.seed == seed}
    return [model for model in MODELS if model not in known]


async def ask(engine: Engine, model: Model, questions: Questions, results: Results[Origin, Answer]) -> None:
    """Have a model answer."""
    answers = [
        *await _draft(engine, model, questions, "greedy"),
        *await _draft(engine, model, questions, "sampled"),
        *await _refine(engine, model, questions),
    ]
    for answer in answers:
        results.append(answer)


async def _draft(engine: Engine, model: Model, questions: Questions, way: Way) -> Sequence[Answer]:
    found = await gather(engine.call(sample) for sample in _samples(questions, way))
    return [
        _verify(questions.seed, prompt, model, way, completion)
        for prompt, completion in zip(questions.prompts, found, strict=True)
    ]


def _samples(questions: Questions, way: Way) -> Iterator[Sample]:
    examining = questions.manifest.recipe.examining
    temperature = 0.0 if way == "greedy" else examining.temperature
    for number, prompt in enumerate(questions.prompts):
        seed = engine_seed(_SEED + questions.seed * 1_000_003 + number)
        yield Sample(prompt.conversation, Sampling(temperature=temperature, max_tokens=examining.max_tokens, seed=seed))


def _verify(seed: int, prompt: Prompt, model: Model, way: Way, completion: Completion) -> Answer:
    verifiers = prompt.verifiers or ()
    checks = {kind: each.check(completion.text) for kind, each in zip(prompt.kinds, verifiers, strict=True)}
    return Answer(
        seed=seed,
        prompt=prompt.id,
        model=model,
        way=way,
        passed=prompt.verify(completion.text).passed,
        tokens=completion.usage.completion_tokens,
        followed={kind: all(check.score == 1.0 for check in found) for kind, found in checks.items()},
    )


async def _refine(engine: Engine, model: Model, questions: Questions) -> Sequence[Answer]:
    examining = questions.manifest.recipe.examining
    if examining.refine is None:
        return []
    found: Sequence[Refinement] = await refine_all(
        engine, questions.refined, examining, examining.refine, first=_FIRST_REFINED
    )
    return [
        Answer(questions.seed, prompt.id, model, "refined", each.passed, each.tokens, {})
        for prompt, each in zip(questions.refined, found, strict=True)
    ]
