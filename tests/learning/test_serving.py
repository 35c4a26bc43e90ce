"""The learned model: what serves, what stays in the engine, and what is refused."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from service.calibration.identity import digest_of_folders
from service.errors import AdapterRefused, EngineDead, ModelNotFound, NotFound, Starting
from service.learning.registry import Registry
from service.learning.serving import FOLLOW_SECONDS, PLACES, LearnedModel, make_room
from service.refinement.roles import Models
from tests.support.adapters import AdaptableEngine, add_adapter, make_base


@dataclass
class Shop:
    """A folder of learning, and the base that its adapters are for."""

    folder: Path
    base: Path
    engine: AdaptableEngine = field(default_factory=lambda: AdaptableEngine(model="base"))
    changes: list[str] = field(default_factory=list)

    @property
    def registry(self) -> Registry:
        return Registry(self.folder)

    def add(self, weights: str, against: str = "", **fields: Any) -> str:
        stated = {"base": digest_of_folders([self.base])[:16], **fields}
        return add_adapter(self.registry, self.folder, weights, "promote", against=against, **stated)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[LearnedModel]:
        """The learned model of a service that has just been started, once something serves."""
        made = LearnedModel(self.registry, "base", make_room(self.registry), lambda: self.base, self.changes.append)

        async def loaded() -> AdaptableEngine:
            return self.engine

        async with made.follow(loaded, lambda: self.engine):
            await until(lambda: made.serving is not None)
            yield made


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    folder = tmp_path / "shop"
    folder.mkdir()
    return Shop(folder, make_base(tmp_path / "base"))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_is_promoted_serves_and_a_rollback_returns(shop: Shop) -> None:
    async with shop.serving() as learned:
        assert learned.resolve("learned") == "base"
        first = shop.add("one")
        await learned.promote(first)
        assert learned.resolve("learned") == f"learned@{first}"
        assert learned.engine(f"learned@{first}").model == f"learned@{first}"

        second = shop.add("two", against=first)
        await learned.promote(second)
        assert shop.registry.current == learned.serving == second
        await learned.rollback()
        assert shop.registry.current == learned.serving == first
        await learned.rollback()
        assert learned.serving == second
    names = [f"learned@{digest}" for digest in (first, second)]
    assert shop.changes == ["base", *names, *names]
    assert learned.resolve("base") == "base"


async def test_a_service_that_starts_serves_what_is_current(shop: Shop) -> None:
    digest = shop.add("one")
    shop.registry.promote(digest)

    made = LearnedModel(shop.registry, "base", make_room(shop.registry), lambda: shop.base)
    assert made.resolve("learned") == f"learned@{digest}"
    with pytest.raises(Starting):
        made.engine(f"learned@{digest}")
    with pytest.raises(Starting):
        await made.rollback()
    async with shop.serving() as learned:
        assert learned.serving == digest


async def test_while_the_engine_loads_nobody_knows_what_fits_it(shop: Shop) -> None:
    manifest = shop.registry.manifest(shop.add("one"))
    loading = LearnedModel(shop.registry, "base", make_room(shop.registry), lambda: shop.base)

    assert loading.obstacle(manifest) == "the engine is still loading"
    async with shop.serving() as learned:
        assert learned.obstacle(manifest) == ""


async def test_a_promotion_by_another_process_is_noticed(shop: Shop) -> None:
    async with shop.serving() as learned:
        digest = shop.add("one")
        shop.registry.promote(digest)
        await until(lambda: learned.serving == digest)
        shop.registry.rollback()
        await until(lambda: learned.serving == "")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"base": "another"}, "another base"),
        ({"rank": 64}, "has rank 64, and the engine was started for rank 8"),
        ({"layers": ["q_proj", "lm_head"]}, r"layers that the engine was not started for \(lm_head\)"),
        ({"weights": "unusable"}, "its shapes do not fit"),
        ({"verdicts": ()}, "has not sat an exam"),
    ],
)
async def test_what_cannot_serve_is_refused_and_nothing_changes(
    shop: Shop, fields: dict[str, Any], reason: str
) -> None:
    async with shop.serving() as learned:
        good = shop.add("one")
        await learned.promote(good)
        bad = shop.add(**{"weights": "two", "against": good, **fields})
        with pytest.raises(AdapterRefused, match=reason):
            await learned.promote(bad)
        assert shop.registry.current == learned.serving == good


async def test_a_damaged_adapter_is_refused(shop: Shop) -> None:
    async with shop.serving() as learned:
        digest = shop.add("one")
        (shop.folder / "adapters" / digest / "adapter_model.safetensors").write_text("half")
        with pytest.raises(AdapterRefused, match="is damaged"):
            await learned.promote(digest)
        with pytest.raises(NotFound, match="there is no adapter nothing"):
            await learned.promote("nothing")
        with pytest.raises(AdapterRefused, match="nothing was promoted yet"):
            await learned.rollback()
        assert learned.serving == ""


@pytest.mark.parametrize("weights", ["one", None])
async def test_what_another_process_promotes_and_cannot_serve_is_a_problem_and_nothing_else(
    shop: Shop, weights: str | None
) -> None:
    good = shop.add("one") if weights else ""
    if good:
        shop.registry.promote(good)
    async with shop.serving() as learned:
        bad = shop.add("two", against=good, base="another")
        shop.registry.promote(bad)
        await until(lambda: bool(learned.problem))
        assert "another base" in learned.problem
        assert learned.serving == good
        shop.registry.rollback()
        await until(lambda: not learned.problem)
        assert learned.serving == good


async def test_a_service_that_starts_with_what_cannot_serve_serves_the_base(shop: Shop) -> None:
    digest = shop.add("one", base="another")
    shop.registry.promote(digest)
    async with shop.serving() as learned:
        assert (learned.serving, learned.resolve("learned")) == ("", "base")
        assert "another base" in learned.problem
        with pytest.raises(Starting):
            learned.engine(f"learned@{digest}")
        await until(lambda: digest in learned._unusable)
        with pytest.raises(ModelNotFound, match="another base"):
            learned.engine(f"learned@{digest}")


async def test_the_engine_is_prepared_for_what_is_in_the_folder_at_its_start(shop: Shop) -> None:
    shop.add("one", rank=16, layers=["q_proj", "qkv_proj"])
    (shop.folder / "adapters" / "damaged").mkdir()

    room = make_room(shop.registry)

    assert (room.places, room.rank) == (PLACES, 16)
    assert {"qkv_proj", "down_proj"} <= room.layers


async def test_an_adapter_that_a_program_holds_stays_and_others_leave_for_new_ones(shop: Shop) -> None:
    async with shop.serving() as learned:
        digests = [""]
        for number in range(PLACES):
            digests.append(shop.add(f"number {number}", against=digests[-1]))
            await learned.promote(digests[-1])
        first = digests[1]
        assert len(shop.engine.inside) == PLACES
        held = Models.single(f"learned@{first}")
        with learned.hold(held):
            digests.append(shop.add("one more", against=digests[-1]))
            await learned.promote(digests[-1])
            assert learned.engine(f"learned@{first}").model == f"learned@{first}"
        digests.append(shop.add("and another", against=digests[-1]))
        await learned.promote(digests[-1])

    assert first not in learned.loaded
    assert shop.engine.most == PLACES


async def test_while_programs_hold_all_adapters_none_is_promoted(shop: Shop) -> None:
    async with shop.serving() as learned:
        before = ""
        for number in range(PLACES):
            digest = shop.add(f"number {number}", against=before)
            await learned.promote(digest)
            before = digest
        late = shop.add("late", against=before)
        one, *others = shop.engine.inside
        with learned.hold(Models.single(one)), learned.hold(Models(*others)):
            with pytest.raises(AdapterRefused, match="programs still use all 4 adapters"):
                await learned.promote(late)
            assert learned.serving == before
        await learned.promote(late)


async def test_a_canary_needs_a_place_and_keeps_it(shop: Shop) -> None:
    async with shop.serving() as learned:
        digests = [""]
        for number in range(PLACES):
            digests.append(shop.add(f"number {number}", against=digests[-1]))
            await learned.promote(digests[-1])
        tried = shop.add("tried", against=digests[-1])
        one, *others = shop.engine.inside
        with learned.hold(Models.single(one)), learned.hold(Models(*others)):
            with pytest.raises(AdapterRefused, match="programs still use all 4 adapters"):
                await learned.start_canary(tried, 1.0)
            assert shop.registry.canaries.running is None
            shop.registry.start_canary(tried, 1.0)  # by the command line, which does not know
            await asyncio.sleep(3 * FOLLOW_SECONDS)
            assert learned.trying.draw(f"learned@{digests[-1]}") is None
        await until(lambda: learned.trying.draw(f"learned@{digests[-1]}") == f"learned@{tried}")

        with learned.hold(Models(*others)):
            late = shop.add("late", against=digests[-1])
            with pytest.raises(AdapterRefused, match="programs still use all 4 adapters"):
                await learned.promote(late)
        assert tried in learned.loaded
        assert shop.engine.most == PLACES


async def test_a_program_holds_its_candidate(shop: Shop) -> None:
    async with shop.serving() as learned:
        tried = shop.add("tried")
        await learned.start_canary(tried, 1.0)
        with learned.hold(Models("base", "base", "base", f"learned@{tried}")):
            await learned.stop_canary(tried)
            before = ""
            for number in range(PLACES + 1):
                digest = shop.add(f"number {number}", against=before)
                await learned.promote(digest)
                before = digest
            assert learned.engine(f"learned@{tried}").model == f"learned@{tried}"
        await learned.promote(shop.add("one more", against=before))
        assert tried not in learned.loaded


async def test_what_a_program_began_with_before_a_restart_is_loaded_again(shop: Shop) -> None:
    first = shop.add("one")
    shop.registry.promote(first)
    second = shop.add("two", against=first)
    shop.registry.promote(second)
    async with shop.serving() as learned:
        assert learned.loaded == {second}
        with pytest.raises(Starting, match="is being loaded"):
            learned.engine(f"learned@{first}")
        await until(lambda: first in learned.loaded)
        assert learned.engine(f"learned@{first}").model == f"learned@{first}"
        with pytest.raises(Starting):
            learned.engine("learned@gone")
        await until(lambda: "gone" in learned._unusable)
        with pytest.raises(ModelNotFound, match="there is no adapter gone"):
            learned.engine("learned@gone")


async def test_an_engine_that_is_dead_is_said_to_be(shop: Shop) -> None:
    made = LearnedModel(shop.registry, "base", make_room(shop.registry), lambda: shop.base)

    def dead() -> AdaptableEngine:
        raise EngineDead("gone")

    async def loaded() -> AdaptableEngine:
        return dead()

    async with made.follow(loaded, dead):
        with pytest.raises(EngineDead):
            await made.rollback()
        with pytest.raises(EngineDead):
            made.engine("learned@any")
