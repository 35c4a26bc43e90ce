"""What the pipelines amount to: the page of results."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from statistics import fmean

from bench.harness.origin import origin
from bench.harness.page import markdown_table, tabulate_bars
from bench.learning.asking import MODELS, Answer, Model, Origin, Way
from bench.scenarios.adapters import Outcome
from service.learning.figures import HEADINGS, tabulate
from service.learning.gate import PARTS
from service.learning.manifest import Manifest
from service.learning.statistics import Interval, interval

AIMS: Mapping[Way, float] = {"sampled": 0.10, "greedy": 0.06}
"""The gains of single drafts that are aimed at."""
COST_AIM = 0.8
LEAST_TEXTS = 10
"""A kind of rule with fewer texts has no row."""

PAGE = """# What learning gains

Written by `make bench-learning` (`python -m bench.learning`); do not edit. {origin} The recipe `{recipe}` was followed
{pipelines} times from the start, each time with another seed: other practice prompts, other texts, another training.
Then the base and each adapter answered prompts that the adapter had not learned from. These texts are not its exam's.

{bars}

## Single drafts

The share of texts that follow all their rules, with trained kinds of rules. *Gain*: in points, with a 95 % interval by
the bootstrap over prompts, so it covers the choice of prompts alone. How much trainings differ shows in the rows of the
seeds. *Greedy*: one text without sampling; *sampled*: one at the recipe's temperature.

{drafts}

By kind of rule, the share of sampled texts that follow it:

{kinds}

## Refined texts

The service's loop with each model as its writer, the same budget of tokens for each prompt, and rules of all kinds.

{refined}

## The exams

What the gate decided, and on what. The prompts of a part end as soon as it has shown what it has to show.

{exams}

## Bad adapters

What the gate says of adapters that are bad on purpose (`make check-adapters`), trained on the engine that serves:

{bad}
"""


def page(
    manifests: Mapping[int, Manifest],
    answers: Iterable[Answer],
    bad: Sequence[Outcome],
    made_by: Origin,
    made_on: date,
    *,
    seeds: Sequence[int],
) -> str:
    """The page as Markdown. manifests: by the seeds of the pipelines. seeds: of all that there should be. ValueError if
    no pipeline has answers of both models."""
    compared = _Compared([answer for answer in answers if answer.seed in manifests])
    return PAGE.format(
        origin=origin(made_by.model, made_by.commit, made_on),
        recipe=made_by.recipe,
        pipelines=len(compared.seeds),
        bars=tabulate_bars(_bars(compared, [manifests.get(seed) for seed in seeds])),
        drafts=markdown_table(("seed", "", "prompts", "base", "adapter", "gain"), _drafts(compared)),
        kinds=markdown_table(("kind", "texts", "base", "adapter", "gain"), _kinds(compared)),
        refined=markdown_table(
            ("seed", "prompts", "base passes", "adapter passes", "base: tokens for each", "adapter", "ratio"),
            _refined(compared),
        ),
        exams="\n\n".join(_exam(seed, manifest) for seed, manifest in sorted(manifests.items())),
        bad=markdown_table(
            ("adapter", "verdict", "because"),
            [(each.bad, f"`{each.decision}`", "; ".join(each.reasons)) for each in bad],
        )
        if bad
        else "Not run.",
    )


class _Compared:
    """The answers of the pipelines that both models have answered."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        by_model = {model: {each.seed for each in answers if each.model == model} for model in MODELS}
        self.seeds = sorted(set.intersection(*by_model.values()))
        if not self.seeds:
            raise ValueError("no pipeline has answers of both models")
        self._answers = [each for each in answers if each.seed in self.seeds]

    def of(self, way: Way, model: Model, seed: int | None = None) -> Sequence[Answer]:
        """In the order of seeds and prompts. seed: None for all of them."""
        wanted = [each for each in self._answers if (each.way, each.model) == (way, model)]
        return sorted(
            (each for each in wanted if seed is None or each.seed == seed), key=lambda each: (each.seed, each.prompt)
        )

    def gain(self, way: Way, seed: int | None = None) -> Interval:
        """In the share of texts that pass."""
        pairs = zip(*(self.of(way, model, seed) for model in MODELS), strict=True)
        return interval([float(after.passed) - float(before.passed) for before, after in pairs])

    def passed(self, way: Way, model: Model, seed: int | None = None) -> float:
        return fmean(each.passed for each in self.of(way, model, seed))

    def cost(self, model: Model, seed: int | None = None) -> float | None:
        """The tokens spent for each refined text that passes."""
        refined = self.of("refined", model, seed)
        passed = sum(each.passed for each in refined)
        return sum(each.tokens for each in refined) / passed if passed else None

    def saving(self, seed: int | None = None) -> float | None:
        """The adapter's cost, of the base's."""
        before, after = (self.cost(model, seed) for model in MODELS)
        return after / before if before and after else None


def _bars(compared: _Compared, manifests: Sequence[Manifest | None]) -> Iterator[tuple[str, str | None, bool]]:
    for way, aim in AIMS.items():
        gain = compared.gain(way)
        yield f"{way} drafts gain", gain.in_points(), gain.low > 0
        yield f"{way} drafts gain ≥ {100 * aim:.0f} points", gain.in_points(), gain.mean >= aim
    verdicts = ["none yet" if manifest is None else manifest.verdicts[0].decision for manifest in manifests]
    yield "every verdict is `promote`", ", ".join(verdicts), set(verdicts) == {"promote"}
    saving = compared.saving()
    yield (
        f"tokens for each refined text that passes ≤ {COST_AIM} of the base's",
        None if saving is None else f"{saving:.2f}",
        saving is not None and saving <= COST_AIM,
    )


def _drafts(compared: _Compared) -> Iterator[Sequence[str]]:
    for way in AIMS:
        for seed in (*compared.seeds, None):
            yield (
                _named(seed),
                way,
                str(len(compared.of(way, "base", seed))),
                *(f"{compared.passed(way, model, seed):.1%}" for model in MODELS),
                compared.gain(way, seed).in_points(),
            )


def _kinds(compared: _Compared) -> Iterator[Sequence[str]]:
    drafts = {model: compared.of("sampled", model) for model in MODELS}
    for kind in sorted({kind for each in drafts["base"] for kind in each.followed}):
        shares = [[float(each.followed[kind]) for each in drafts[model] if kind in each.followed] for model in MODELS]
        before, after = shares
        if len(before) >= LEAST_TEXTS:
            gains = [later - earlier for earlier, later in zip(before, after, strict=True)]
            yield kind, str(len(before)), f"{fmean(before):.0%}", f"{fmean(after):.0%}", interval(gains).in_points()


def _refined(compared: _Compared) -> Iterator[Sequence[str]]:
    for seed in (*compared.seeds, None):
        if asked := compared.of("refined", "base", seed):
            yield (
                _named(seed),
                str(len(asked)),
                *(f"{compared.passed('refined', model, seed):.0%}" for model in MODELS),
                *(_or_none(compared.cost(model, seed), "{:.0f}".format) for model in MODELS),
                _or_none(compared.saving(seed), "{:.2f}".format),
            )


def _exam(seed: int, manifest: Manifest) -> str:
    verdict = manifest.verdicts[0]
    lines = [
        f"**Seed {seed}: `{verdict.decision}`**, after {manifest.texts} texts were learned in {manifest.seconds:.0f} s",
        "",
        markdown_table(HEADINGS, tabulate(verdict.figures)),
    ]
    left_out = [meaning for name, meaning in PARTS.items() if f"{name}.gain" not in verdict.figures]
    return "\n".join([*lines, *(["", f"Not examined: {', '.join(left_out)}."] if left_out else [])])


def _named(seed: int | None) -> str:
    return "all" if seed is None else str(seed)


def _or_none(value: float | None, shown: Callable[[float], str]) -> str:
    return "none" if value is None else shown(value)
