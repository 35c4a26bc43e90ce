"""Adapters through both clients, against the whole service."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from redraft import Busy, ProblemError, adapters
from service.api import learning as bodies
from service.learning.runs import record_run
from tests.client.test_drift import model_shape
from tests.support.adapters import Shop, make_base
from tests.support.callers import WAYS, calling


@pytest.mark.parametrize("way", WAYS)
async def test_an_adapter_is_promoted_and_rolled_back(way: str, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    shop = Shop(folder, make_base(tmp_path / "base"))
    digest, other = shop.add("one"), shop.add("two", base="another")
    async with shop.serving() as served, calling(way, served.client.base_url) as client:
        listed = await client.ask("adapters")
        whole = await client.ask("adapter", adapter_id=digest)
        promoted = await client.ask("promote", adapter_id=digest)
        with pytest.raises(ProblemError) as refused:
            await client.ask("promote", adapter_id=other)
        returned = await client.ask("roll_back")
        with record_run(shop.folder, "quick") as record:
            [run] = await client.ask("learning_runs")

    assert {adapter.id for adapter in listed.adapters} == {digest, other}
    assert digest in whole.card
    assert (listed.serves, promoted.serves, returned.serves) == (None, digest, None)
    assert (run.id, run.state, run.recipe) == (record.run.id, "running", "quick")
    assert refused.value.code == "adapter_refused"
    assert not isinstance(refused.value, Busy)


@pytest.mark.parametrize("way", WAYS)
async def test_a_canary_is_started_and_stopped(way: str, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    shop = Shop(folder, make_base(tmp_path / "base"))
    shop.promote("one")
    digest = shop.add("two")
    async with shop.serving() as served, calling(way, served.client.base_url) as client:
        started = await client.ask("start_canary", adapter_id=digest, share=0.5)
        stopped = await client.ask("stop_canary", adapter_id=digest)
        with pytest.raises(ProblemError) as refused:
            await client.ask("stop_canary", adapter_id=digest)

    assert (started.canary.state, started.canary.share, started.canary.promotes) == ("running", 0.5, False)
    assert (stopped.canary.state, stopped.canary.verdict) == ("ended", "undecided")
    assert refused.value.code == "adapter_refused"


@pytest.mark.parametrize(
    ("result", "body"),
    [
        (adapters.Canary, bodies.CanaryBody),
        (adapters.Verdict, bodies.VerdictBody),
        (adapters.Adapter, bodies.AdapterBody),
        (adapters.WholeAdapter, bodies.WholeAdapterBody),
        (adapters.Adapters, bodies.AdaptersBody),
        (adapters.LearningRuns, bodies.RunListBody),
    ],
)
def test_results_have_the_fields_of_the_service_s_answers(result: type[BaseModel], body: type[BaseModel]) -> None:
    expected = model_shape(body, "serialization", words=False)
    assert model_shape(result, "validation", words=False) == expected
