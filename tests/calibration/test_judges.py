"""What the service finds out about its judges: by measuring them once, and by files."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from service.calibration import judges
from service.calibration.judges import JudgeCheck, KnownJudges, Unmeasurable
from service.calibration.measurement import ScoredPair, measure
from service.calibration.pairs import built_in_source, read_pairs
from service.calibration.store import built_in_path, default_path, load, save
from service.engines.base import Choose
from service.engines.scripted import EngineCall, Script, ScriptedEngine
from service.errors import EngineUnavailable
from service.evaluators.base import Evaluation
from service.metrics import Metrics
from service.programs.admission import Admission
from service.programs.background import Background
from service.programs.compile import Programs, RequestLimits
from service.programs.models import ServedModels
from service.refinement.calibration import Calibration, Scale
from service.refinement.candidate import Assessment
from service.refinement.policy import judges_opinion
from service.refinement.trust import UNKNOWN, JudgeTrust
from service.tasks.task import load_tasks
from service.wire.requests import CritiqueRequest
from tests.support.scripts import rated

PAIRS = read_pairs(built_in_source())
LIMITS = RequestLimits(4, 4, 512, 60.0)
RIGHT = {pair.right for pair in PAIRS}


@pytest.fixture(autouse=True)
def _cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(judges, "PAUSE_SECONDS", 0.0)


def shows_right(call: EngineCall) -> bool:
    """Whether the reply that the judge is shown is the right one of its pair."""
    _, _, shown = call.prompt.partition("Someone replied, between two lines that read ")
    return any(f"\n{right}\n" in shown for right in RIGHT)


def knowing(call: Choose) -> Sequence[float]:
    return rated(0.75 if shows_right(call) else 0.25)


def guessing(call: Choose) -> Sequence[float]:
    return rated(0.5)


def make_engine(weights: Callable[[Choose], Sequence[float]], **script: object) -> ScriptedEngine:
    return ScriptedEngine(Script(weights=weights, **script), model="m")  # type: ignore[arg-type]


def make_check(known: KnownJudges, **fields: object) -> JudgeCheck:
    admission = Admission(4, 4, on_shed=lambda reason: None)
    programs = Programs(load_tasks(), LIMITS, ServedModels(("m",)))
    return JudgeCheck(known, programs, Background(admission, 4), Metrics(), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weights", "trust"),
    [(knowing, JudgeTrust("drive", 1.0, "built_in")), (guessing, JudgeTrust("none", 0.0, "built_in"))],
)
async def test_a_judge_is_measured_by_the_built_in_pairs(
    weights: Callable[[Choose], Sequence[float]], trust: JudgeTrust
) -> None:
    heard: list[tuple[str, JudgeTrust]] = []
    known = KnownJudges(lambda model, found: heard.append((model, found)))
    engine = make_engine(weights)
    assert known.trust("m") == UNKNOWN

    await make_check(known).check(engine, "digest", measures=True)

    assert known.trust("m") == trust
    assert heard == [("m", trust)]
    criteria = len(load_tasks()["general"].criteria)
    assert len(engine.calls_of(Choose)) == 2 * len(PAIRS) * criteria
    assert len(engine.calls) == 2 * len(PAIRS) * (criteria + 1)


async def test_what_was_measured_is_kept_and_not_measured_again() -> None:
    await make_check(KnownJudges()).check(make_engine(knowing), "digest", measures=True)
    known, idle = KnownJudges(), make_engine(guessing)

    await make_check(known).check(idle, "digest", measures=True)

    assert known.trust("m") == JudgeTrust("drive", 1.0, "built_in")
    assert idle.calls == []
    assert load(built_in_path("digest")).model == "m"


async def test_other_weights_are_another_judge() -> None:
    await make_check(KnownJudges()).check(make_engine(knowing), "digest", measures=True)
    known = KnownJudges()

    await make_check(known).check(make_engine(guessing), "another", measures=True)

    assert known.trust("m").level == "none"


async def test_the_operator_s_calibration_comes_first() -> None:
    save(measure([ScoredPair(0.9, 0.1)] * 60, judge="digest", model="m", source="calibrated"), default_path("digest"))
    named = measure([ScoredPair(0.1, 0.9)] * 60, judge="digest", model="m", source="calibrated")
    of_another = measure([ScoredPair(0.1, 0.9)] * 60, judge="another", model="m", source="calibrated")
    idle = make_engine(guessing)
    found = []
    for calibrated in (None, named, of_another):
        known = KnownJudges()
        await make_check(known, calibrated=calibrated).check(idle, "digest", measures=False)
        found.append(known.trust("m").level)

    assert found == ["drive", "none", "drive"]
    assert idle.calls == []


async def test_what_a_score_means_counts_if_the_operator_has_calibrated_a_judge_that_ranks() -> None:
    pairs = [ScoredPair(0.9, 0.1)] * 60
    ranks = measure(pairs, judge="digest", model="m", source="calibrated")
    reversed_ = measure([ScoredPair(0.1, 0.9)] * 60, judge="digest", model="m", source="calibrated")
    built_in = measure(pairs, judge="digest", model="m", source="built_in")
    assert ranks.map is not None
    known = KnownJudges()
    programs = Programs(load_tasks(), LIMITS, ServedModels(("m",)), judge_scale=known.scale)
    asked = CritiqueRequest.model_validate({"prompt": "Hi.", "candidate": "Hello."})

    for found, scale in ((built_in, None), (reversed_, None), (ranks, Scale(ranks.map.slope, ranks.map.neutral))):
        known.note("m", found)
        assert known.scale("m") == scale
        assert programs.compile_review(asked).calibration == (
            Calibration() if scale is None else replace(Calibration(), judged=scale)
        )
    sure = Assessment((Evaluation("judge", "judge", False, 1.0, None, 0.97, stderr=0.1),))
    assert judges_opinion(sure, programs.compile_review(asked).calibration, known.trust("m")) == "sure"


async def test_without_the_check_nothing_is_known_but_the_digest() -> None:
    await make_check(KnownJudges()).check(make_engine(guessing), "digest", measures=True)
    known, idle = KnownJudges(), make_engine(guessing)

    await make_check(known).check(idle, "digest", measures=False)

    assert (known.trust("m"), known.digest("m"), known.digest("other")) == (UNKNOWN, "digest", None)
    assert idle.calls == []


async def test_a_kept_file_that_is_damaged_is_measured_again() -> None:
    built_in_path("digest").parent.mkdir(parents=True)
    built_in_path("digest").write_text("{")
    known = KnownJudges()

    await make_check(known).check(make_engine(knowing), "digest", measures=True)

    assert known.trust("m").level == "drive"
    assert load(built_in_path("digest")).level == "drive"


async def test_an_engine_that_fails_is_tried_again() -> None:
    failures = iter([True])

    def fault(call: EngineCall) -> None:
        if next(failures, False):
            raise EngineUnavailable("gone")

    known = KnownJudges()

    await make_check(known).check(make_engine(knowing, fault=fault), "digest", measures=True)

    assert known.trust("m").level == "drive"


async def test_a_judge_that_can_never_be_measured_stays_unknown() -> None:
    def fault(call: EngineCall) -> None:
        raise EngineUnavailable("gone")

    known = KnownJudges()

    await make_check(known).check(make_engine(knowing, fault=fault), "digest", measures=True)

    assert known.trust("m") == UNKNOWN
    assert not built_in_path("digest").exists()


async def test_an_answer_that_is_none_is_not_a_score() -> None:
    def fault(call: EngineCall) -> None:
        raise ValueError("no such option")

    with pytest.raises(Unmeasurable, match="no such option"):
        await make_check(KnownJudges()).score(make_engine(knowing, fault=fault), PAIRS[:1])


async def test_a_folder_that_cannot_be_written_to_costs_only_the_file(tmp_path: Path) -> None:
    (tmp_path / "redraft").write_text("not a folder")
    known = KnownJudges()

    await make_check(known).check(make_engine(knowing), "digest", measures=True)

    assert known.trust("m").level == "drive"


async def test_measuring_waits_for_the_requests_that_somebody_waits_for() -> None:
    known, engine = KnownJudges(), make_engine(knowing)
    check = make_check(known)
    seen: list[int] = []

    def fault(call: EngineCall) -> None:
        seen.append(engine.in_flight)

    engine.script = Script(weights=knowing, fault=fault)
    async with check.background._admission.admit("caller"):
        checking = asyncio.ensure_future(check.check(engine, "digest", measures=True))
        async with asyncio.timeout(20):
            while len(seen) < 3:
                await asyncio.sleep(0.002)
        checking.cancel()
        await asyncio.wait([checking])

    assert max(seen) == 1  # a single call at a time, as of a batch
