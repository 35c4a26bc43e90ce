"""Adapters and runs of learning through both clients, against the whole service."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from redraft import Busy, ProblemError, adapters, learning
from service.api import learning as bodies
from service.api.learning_runs import RunListBody
from tests.client.test_drift import model_shape
from tests.support.adapters import Shop, launch, make_base
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

    assert {adapter.id for adapter in listed.adapters} == {digest, other}
    assert digest in whole.card
    assert (listed.serves, promoted.serves, returned.serves) == (None, digest, None)
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


@pytest.mark.parametrize("way", WAYS)
async def test_a_run_of_learning_is_started_watched_and_cancelled(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(monkeypatch, "sh", "-c", "exec cat")
    folder = tmp_path / "shop"
    folder.mkdir()
    shop = Shop(folder, make_base(tmp_path / "base"))
    async with shop.serving() as served, calling(way, served.client.base_url) as client:
        begun = await client.ask("start_learning", recipe="quick", sources=["practice"])
        [first] = await client.events("watch_learning", until=learning.LearningRun, run_id=begun.id)
        with pytest.raises(ProblemError) as refused:
            await client.ask("start_learning")
        cancelled = await client.ask("cancel_learning", run_id=begun.id)
        [last] = await client.events("watch_learning", run_id=begun.id)
        shown = await client.ask("learning_run", run_id=begun.id)
        listed = await client.ask("learning_runs")

    assert (begun.state, begun.recipe, first) == ("running", "quick", begun)
    assert refused.value.code == "run_refused"
    assert cancelled.state == "cancelled"
    assert last == shown == cancelled
    assert listed == (cancelled,)


@pytest.mark.parametrize(
    ("result", "body"),
    [
        (adapters.Canary, bodies.CanaryBody),
        (adapters.Verdict, bodies.VerdictBody),
        (adapters.Adapter, bodies.AdapterBody),
        (adapters.WholeAdapter, bodies.WholeAdapterBody),
        (adapters.Adapters, bodies.AdaptersBody),
        (learning.LearningRuns, RunListBody),
    ],
)
def test_results_have_the_fields_of_the_service_s_answers(result: type[BaseModel], body: type[BaseModel]) -> None:
    expected = model_shape(body, "serialization", words=False)
    assert model_shape(result, "validation", words=False) == expected
