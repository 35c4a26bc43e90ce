"""The judges of a service: what is known of each, from a file or by a measurement once its engine serves."""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

from service.calibration.measurement import Measurement, ScoredPair, measure
from service.calibration.pairs import LabelledPair, built_in_source, read_pairs
from service.calibration.store import CalibrationError, built_in_path, default_path, load, save
from service.concurrency import gather
from service.engines.base import Engine
from service.errors import RedraftError
from service.metrics import Metrics
from service.programs.background import Background
from service.programs.compile import Programs
from service.refinement.calibration import Scale
from service.refinement.events import Reviewed
from service.refinement.policy import MODEL_JUDGE
from service.refinement.program import Review
from service.refinement.roles import Models, Roles
from service.refinement.single import review
from service.refinement.trust import UNKNOWN, JudgeTrust
from service.wire.requests import CritiqueRequest

log = logging.getLogger(__name__)

ATTEMPTS = 5
PAUSE_SECONDS = 60.0
"""Between two attempts to measure a judge whose engine fails."""


@dataclass
class KnownJudges:
    """What is known of each model as a judge. Before a judge is measured, it is UNKNOWN.

    on_known: hears of each judge that becomes known.
    """

    on_known: Callable[[str, JudgeTrust], None] = lambda model, trust: None
    _found: dict[str, Measurement] = field(default_factory=dict)
    _digests: dict[str, str] = field(default_factory=dict)

    def trust(self, model: str) -> JudgeTrust:
        return self._found[model].trust if model in self._found else UNKNOWN

    def scale(self, model: str) -> Scale | None:
        """What the model's scores say of a fault; None unless the operator has calibrated it as a judge that ranks."""
        found = self._found.get(model)
        if found is None or found.source != "calibrated" or found.map is None or found.map.slope >= 0.0:
            return None
        return Scale(found.map.slope, found.map.neutral)

    def digest(self, model: str) -> str | None:
        """What a calibration of the judge is kept under; None while that is not known."""
        return self._digests.get(model)

    def note_digest(self, model: str, digest: str) -> None:
        self._digests[model] = digest

    def note(self, model: str, found: Measurement) -> None:
        """Trust the model as a judge as far as was measured."""
        self._found[model] = found
        self.on_known(model, found.trust)
        known = {
            "model": model,
            "trust": found.level,
            "share": round(found.share, 3),
            "pairs": found.pairs,
            "source": found.source,
        }
        log.info("judge known", extra=known)


@dataclass(frozen=True)
class JudgeCheck:
    """Finds out about a judge: by the operator's calibration, or by the built-in pairs, which are scored once.

    known: where the results go.
    programs, background, metrics: the service's. The calls are made behind all others, and counted.
    calibrated: the calibration that the operator names; others are looked for in the cache folder.
    """

    known: KnownJudges
    programs: Programs
    background: Background
    metrics: Metrics
    calibrated: Measurement | None = None

    async def check(self, engine: Engine, digest: str, *, measures: bool) -> None:
        """Find out about a model as a judge. ``measures``: without a calibration, the built-in pairs tell."""
        self.known.note_digest(engine.model, digest)
        found = self._calibrated(digest)
        if found is None and measures:
            found = _load(built_in_path(digest)) or await self._measure(engine, digest)
        if found is not None:
            self.known.note(engine.model, found)

    def _calibrated(self, digest: str) -> Measurement | None:
        if self.calibrated is not None and self.calibrated.judge == digest:
            return self.calibrated
        return _load(default_path(digest))

    async def _measure(self, engine: Engine, digest: str) -> Measurement | None:
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(PAUSE_SECONDS)
            try:
                scored = await self.score(engine, read_pairs(built_in_source()))
            except (RedraftError, Unmeasurable) as error:
                log.warning("the judge could not be measured", extra={"model": engine.model, "reason": str(error)})
                continue
            found = measure(scored, judge=digest, model=engine.model, source="built_in")
            _keep(found, built_in_path(digest))
            return found
        return None

    async def score(self, engine: Engine, pairs: Sequence[LabelledPair]) -> Sequence[ScoredPair]:
        """Have the model judge all replies. Raises Unmeasurable, or what its engine raises."""
        scores = await gather(self._score(engine, pair, reply) for pair in pairs for reply in (pair.right, pair.wrong))
        return [ScoredPair(right, wrong) for right, wrong in zip(scores[::2], scores[1::2], strict=True)]

    async def _score(self, engine: Engine, pair: LabelledPair, reply: str) -> float | None:
        async with self.background.place():
            program = self._compile(engine, pair, reply)
            roles = self.background.roles(Roles.single(engine))
            async with aclosing(review(program, roles)) as events:
                async for event in events:
                    self.metrics.observe(program.task, event)
                    if isinstance(event, Reviewed):
                        return judged(event)
        raise RuntimeError("a review ends with Reviewed")

    def _compile(self, engine: Engine, pair: LabelledPair, reply: str) -> Review:
        stated = {**pair.asked, "candidate": reply, "feedback": False}
        request = CritiqueRequest.model_validate_json(json.dumps(stated))
        program = self.programs.compile_review(request, "batch")
        return replace(program, models=Models.single(engine.model), fence=_fence(pair))


def _fence(pair: LabelledPair) -> str:
    """The fence of both of a pair's replies, the same at each measurement: a judge's score depends on it a little. The
    replies are known, so it need not be secret."""
    asked = json.dumps(pair.asked, sort_keys=True).encode()
    return f"[{hashlib.sha256(asked).hexdigest()[:12]}]"


class Unmeasurable(Exception):
    """A judge gave no answer to a question, so that nothing can be said of it."""


def judged(reviewed: Reviewed) -> float | None:
    """The judge's score. Raises Unmeasurable."""
    [evaluation] = [e for e in reviewed.assessment.evaluations if e.evaluator == MODEL_JUDGE]
    if evaluation.error is not None:
        raise Unmeasurable(evaluation.error)
    return evaluation.score


def _load(path: Path) -> Measurement | None:
    """What is kept there, if it can be used."""
    if not path.is_file():
        return None
    try:
        return load(path)
    except CalibrationError as error:
        log.warning("a calibration was left out", extra={"reason": str(error)})
        return None


def _keep(measurement: Measurement, path: Path) -> None:
    try:
        save(measurement, path)
    except OSError as error:
        log.warning("the judge's measurement could not be kept", extra={"reason": f"{path}: {error.strerror}"})
