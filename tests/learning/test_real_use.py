"""From a request with ``store: true`` over HTTP, through feedback and its lessons, to a withdrawn trace."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.engines.base import Sample
from service.engines.scripted import Script
from service.engines.served import ServedEngine
from service.learning.collected import read_lines
from service.learning.lessons import BestText, LessonPair
from service.learning.lineage import follow_deletions
from service.learning.recipe import Recipe, load_recipe
from service.learning.registry import Refused
from service.learning.stored import Gathered
from service.learning.trainer import PAIRS, TEXTS
from service.learning.workshop import Workshop
from service.settings import Settings
from service.store.errors import StoreMisconfigured
from service.stores import open_traces_to_read
from service.traces.store import TraceStore
from tests.learning.test_trainer import fake
from tests.support.adapters import AdaptableEngine, make_base
from tests.support.serving import Served, serving

SALT = {"type": "keywords", "include": ["salt"]}
ASKED = "Write about the sea."
STATED = f'{ASKED}\n\nUse all of these words: "salt".'
REFINE = {
    "prompt": ASKED,
    "search": {"rounds": 1, "repairs": False},
    "judge": False,
    "evaluators": [SALT],
    "store": True,
}
FIRST, REVISED, EDITED = "The sea is very wide.", "The sea is full of salt.", "The sea is wide, and full of salt."


OTHER = {"prompt": "Write about the wind.", "evaluators": [{"type": "length", "unit": "words", "min": 2}]}


def write(call: Sample) -> str:
    if "wind" in str(call.prompt):
        return "The wind is cold."
    return REVISED if "salt" in str(call.prompt) else FIRST


@asynccontextmanager
async def service(tmp_path: Path, **settings: Any) -> AsyncIterator[Served]:
    """A service that stores traces and learns."""
    engine = AdaptableEngine(Script(reply=write), model="base")

    async def start(*_: object) -> ServedEngine:
        return engine

    stated = {
        "engine": "vllm", "model": str(tmp_path / "base"), "learning_dir": tmp_path / "shop", "judge_check": False,
        "store": str(tmp_path / "store.db"), "stored_traces": True, **settings,
    }  # fmt: skip
    async with serving(start=start, **stated) as served:
        while (await served.client.get("/health/ready")).status_code != 200:
            pass
        yield served


@asynccontextmanager
async def traces(tmp_path: Path) -> AsyncIterator[TraceStore]:
    """The traces of the service, as the command line reads them while it runs."""
    store, close = open_traces_to_read(Settings(store=str(tmp_path / "store.db")))
    try:
        yield store
    finally:
        await close()


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "shop", make_base(tmp_path / "base"), fake("works"))


@pytest.fixture
def recipe() -> Recipe:
    quick = load_recipe("quick")
    return quick.model_copy(update={"training": quick.training.model_copy(update={"least_texts": 1})})


async def refine(served: Served, **fields: Any) -> str:
    response = await served.post("/v1/refine", {**REFINE, **fields})
    assert response.status_code == 200, response.text
    its_id: str = response.json()["id"]
    await served.client.get("/v1/traces")  # which waits for those that are being stored
    return its_id


async def say(served: Served, **fields: Any) -> None:
    response = await served.post("/v1/feedback", fields)
    assert response.status_code == 201, response.text


async def collect(shop: Workshop, tmp_path: Path, *trusted: str) -> Gathered:
    async with traces(tmp_path) as store:
        return await shop.collect_stored(store, ["base"], trusted)


def bytes_in(folder: Path) -> bytes:
    """What is in all files, the database's and the adapters' too."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_what_was_refined_and_edited_is_learned(shop: Workshop, recipe: Recipe, tmp_path: Path) -> None:
    async with service(tmp_path) as served:
        its_id = await refine(served)
        await say(served, program=its_id, kind="edit", value=EDITED)
        other = await refine(served, **OTHER)
        silent = await refine(served, store=False)
        gathered = await collect(shop, tmp_path, "anonymous")
        lessons, folder = shop.make_lessons()
        manifest = await shop.train(recipe, lambda _: None)
        listed = (await served.client.get("/v1/adapters")).json()["adapters"]

    assert {each.trace for each in gathered.collected} == lessons.traces == {its_id, other}
    assert silent not in lessons.traces
    texts, pairs = read_lines(folder / TEXTS, BestText), read_lines(folder / PAIRS, LessonPair)
    assert [(text.text, text.source) for text in texts if text.prompt.text == STATED] == [
        (EDITED, "edit"),
        (REVISED, "revision"),
    ]
    assert [(pair.chosen, pair.rejected, pair.relation) for pair in pairs] == [
        (EDITED, REVISED, "preference"),
        (REVISED, FIRST, "refinement"),
    ]
    assert set(manifest.traces) == {its_id, other}
    assert [(one["traces"], one["withdrawn"], one["obstacle"]) for one in listed] == [(2, 0, "it has not sat an exam")]


async def test_a_trace_that_is_deleted_while_the_service_runs_leaves_no_text(
    shop: Workshop, recipe: Recipe, tmp_path: Path
) -> None:
    async with service(tmp_path) as served:
        its_id = await refine(served)
        await say(served, program=its_id, kind="edit", value=EDITED)
        await refine(served, **OTHER)
        await collect(shop, tmp_path, "anonymous")
        shop.make_lessons()
        adapter = (await shop.train(recipe, lambda _: None)).adapter
        assert (await served.client.delete(f"/v1/traces/{its_id}")).json() == {"deleted": 1}
        [listed] = (await served.client.get("/v1/adapters")).json()["adapters"]
        shown = (await served.client.get(f"/v1/adapters/{adapter}")).json()
        left, lessons = bytes_in(tmp_path), shop.make_lessons()[0]
        await served.client.delete("/v1/traces")

    assert (listed["traces"], listed["withdrawn"]) == (2, 1)
    assert listed["obstacle"] == "1 of the 2 traces that it learned from were withdrawn"
    assert "withdrawn: 1" in shown["card"]
    for text in (ASKED, FIRST, REVISED, EDITED):
        assert text.encode() not in left
    assert [best.text for best in lessons.texts] == ["The wind is cold."]
    with pytest.raises(Refused, match="nothing was collected"):
        shop.make_lessons()
    with pytest.raises(Refused, match="the store has no traces to learn from"):
        await collect(shop, tmp_path)


async def test_what_another_process_deletes_is_followed_too(shop: Workshop, tmp_path: Path) -> None:
    async with service(tmp_path, learning_dir=None) as served:
        its_id = await refine(served)
        await collect(shop, tmp_path, "anonymous")
        await served.client.delete("/v1/traces")
        assert its_id in (tmp_path / "shop/stored.jsonl").read_text()
        async with traces(tmp_path) as store:
            await follow_deletions(tmp_path / "shop", store, 30.0)

    assert (tmp_path / "shop/stored.jsonl").read_text() == ""


async def test_one_caller_alone_teaches_nothing_unless_it_is_trusted(shop: Workshop, tmp_path: Path) -> None:
    async with service(tmp_path) as served:
        await refine(served)
        await collect(shop, tmp_path)
        with pytest.raises(Refused, match="2 lessons: more than 5% from one caller"):
            shop.make_lessons()
        await collect(shop, tmp_path, "anonymous")

    lessons, _ = shop.make_lessons()
    assert (len(lessons.texts), len(lessons.pairs)) == (1, 1)


async def test_a_text_without_rules_is_learned_only_with_a_thumb_up(shop: Workshop, tmp_path: Path) -> None:
    plain = {"evaluators": [], "search": {"rounds": 0}}
    async with service(tmp_path) as served:
        its_id = await refine(served, **plain)
        await collect(shop, tmp_path, "anonymous")
        with pytest.raises(Refused, match="1 prompts: no rules and no feedback"):
            shop.make_lessons()
        await say(served, program=its_id, kind="thumb", value="up")
        await collect(shop, tmp_path, "anonymous")

    lessons, _ = shop.make_lessons()
    assert [best.text for best in lessons.texts] == [FIRST]


async def test_the_rules_of_the_task_are_those_of_its_traces(shop: Workshop, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "salty.toml").write_text(
        'description = "Write about the sea."\n[example]\nprompt = "The sea."\n'
        '[[evaluators]]\ntype = "keywords"\ninclude = ["salt"]\n'
    )
    async with service(tmp_path, tasks_dir=tasks) as served:
        await refine(served, task="salty", evaluators=[])
        await collect(shop, tmp_path, "anonymous")

    lessons, _ = shop.make_lessons()
    assert [(best.text, best.prompt.kinds) for best in lessons.texts] == [(REVISED, ("include",))]


def test_a_store_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreMisconfigured, match="REDRAFT_STORE names no database"):
        open_traces_to_read(Settings())
    with pytest.raises(StoreMisconfigured, match="the database cannot be opened"):
        open_traces_to_read(Settings(store=str(tmp_path / "none.db")))


async def test_a_store_without_traces_is_named(tmp_path: Path) -> None:
    async with serving(store=str(tmp_path / "store.db")):
        pass
    with pytest.raises(StoreMisconfigured, match="the database has no table redraft_"):
        open_traces_to_read(Settings(store=str(tmp_path / "store.db")))
