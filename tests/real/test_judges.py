"""The embedded model as a judge, measured as at a start."""

from pathlib import Path

import pytest

from service.calibration.judges import JudgeCheck, KnownJudges
from service.metrics import Metrics
from service.programs.admission import Admission
from service.programs.background import Background
from service.programs.compile import Programs, RequestLimits
from service.programs.models import ServedModels
from service.tasks.task import load_tasks
from tests.real.conftest import Service


async def test_the_embedded_model_is_not_to_be_trusted_as_a_judge(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    known = KnownJudges()
    served = ServedModels((service.engine.model,))
    programs = Programs(load_tasks(), RequestLimits(1, 1, 512, 240.0), served)
    background = Background(Admission(8, 8, on_shed=lambda reason: None), 8)

    await JudgeCheck(known, programs, background, Metrics()).check(service.engine, "digest", measures=True)

    trust = known.trust(service.engine.model)
    assert (trust.level, trust.source) == ("none", "built_in")
    assert trust.share is not None
    assert 0.25 < trust.share < 0.7  # about as a coin
