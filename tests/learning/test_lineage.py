"""What becomes of lessons and adapters when the traces that they are from are gone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.learning.lineage import STORED, follow_deletions, named_traces, withdraw, withdrawn_traces, write_stored
from service.learning.registry import Refused
from service.learning.trainer import GREEDY, PAIRS, TEXTS
from service.learning.workshop import Workshop
from service.programs.ids import make_id
from service.traces.database import TraceDatabase
from service.whole_files import aside_of
from tests.learning.made import collected, prompt, text
from tests.support.adapters import add_adapter, make_base
from tests.support.stored_traces import candidate, make_document, make_trace, trace_store

DAYS = 30.0
GOOD, BAD = "Sea water has salt in it.", "Sea water is never sweet."


@pytest.fixture
async def store(place: str) -> AsyncIterator[TraceDatabase]:
    async with trace_store(place) as opened:
        yield opened


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "shop", make_base(tmp_path / "base"))


async def keep(store: TraceDatabase, count: int) -> list[str]:
    """Keep traces, and return their ids."""
    document = {**make_document([candidate("c0", GOOD)]), "request": {}}
    made = [make_trace(document, id=f"ref-{number:032x}", created=float(number)) for number in range(count)]
    for trace in made:
        await store.add(trace)
    return [trace.summary.id for trace in made]


def take(folder: Path, ids: list[str]) -> None:
    """Take texts from traces, each of which has its own id in its texts."""
    each = [
        collected(
            text(f"{BAD} {its_id[-4:]}"),
            text(f"{GOOD} {its_id[-4:]}"),
            of=prompt(its_id, f"Write about the sea, as {its_id[-4:]} does."),
            trace=its_id,
        )
        for its_id in ids
    ]
    write_stored(folder, each)


def texts_in(folder: Path) -> str:
    """All bytes of the files that may have texts."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("split.json", "manifest.json")]
    return "".join(path.read_text() for path in files)


async def test_a_deleted_trace_leaves_no_text_and_its_adapters_are_marked(
    store: TraceDatabase, shop: Workshop, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    gone, kept = await keep(store, 2)
    take(folder, [gone, kept])
    lessons, place = shop.make_lessons()
    assert lessons.traces == {gone, kept}
    of_both = add_adapter(shop.registry, folder, "one", "promote", traces=(gone, kept))
    of_other = add_adapter(shop.registry, folder, "two", "promote", traces=(kept,))
    for digest in (of_both, of_other):
        (folder / "adapters" / digest / GREEDY).write_text('[{"prompt": [1], "text": "Salt."}]')

    assert await follow_deletions(folder, store, DAYS) == 0
    await store.delete("ann", gone)
    assert await follow_deletions(folder, store, DAYS) == 1
    assert await follow_deletions(folder, store, DAYS) == 0

    assert f"as {gone[-4:]} does" not in texts_in(folder)
    assert f"as {kept[-4:]} does" in (place / TEXTS).read_text()
    assert f"as {kept[-4:]} does" in (place / PAIRS).read_text()
    marked, other = shop.registry.manifest(of_both), shop.registry.manifest(of_other)
    assert (marked.withdrawn, other.withdrawn) == ((gone,), ())
    assert "from stored traces: 2, withdrawn: 1" in (folder / "adapters" / of_both / "README.md").read_text()
    assert (folder / "adapters" / of_both / GREEDY).read_text() == "[]"
    assert (folder / "adapters" / of_other / GREEDY).read_text() != "[]"
    with pytest.raises(Refused, match="1 of the 2 traces that it learned from were withdrawn"):
        shop.registry.promote(of_both)

    again, _ = shop.make_lessons()
    assert again.traces == {kept}


async def test_a_trace_that_has_expired_leaves_no_text_and_marks_nothing(
    store: TraceDatabase, shop: Workshop, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    old, new = await keep(store, 2)
    take(folder, [old, new])
    shop.make_lessons()
    digest = add_adapter(shop.registry, folder, "one", traces=(old, new))
    assert await store.purge(created_before=0.5) == 1

    assert await follow_deletions(folder, store, DAYS) == 0
    assert f"as {old[-4:]} does" not in texts_in(folder)
    assert shop.registry.manifest(digest).withdrawn == ()
    assert named_traces(folder) == {old, new}  # the manifest still names both


async def test_what_another_store_has_stays(store: TraceDatabase, shop: Workshop, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    elsewhere = make_id("ref")
    take(folder, [elsewhere])

    assert await follow_deletions(folder, store, DAYS) == 0
    assert elsewhere in (folder / STORED).read_text()
    assert await follow_deletions(folder, store, -1.0) == 0  # as it is once the days are over
    assert elsewhere not in (folder / STORED).read_text()


async def test_what_the_operator_withdraws_is_not_taken_again(
    store: TraceDatabase, shop: Workshop, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    one, other = await keep(store, 2)
    take(folder, [one, other])
    digest = add_adapter(shop.registry, folder, "one", traces=(one,))

    assert withdraw(folder, [one]) == 1
    assert shop.registry.manifest(digest).withdrawn == (one,)
    assert withdrawn_traces(folder) == {one}
    assert f"as {one[-4:]} does" not in texts_in(folder)
    found = await shop.collect_stored(store, ())
    assert [each.trace for each in found.collected] == [other]


async def test_what_a_killed_process_has_left_hinders_nobody(
    store: TraceDatabase, shop: Workshop, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    gone, kept = await keep(store, 2)
    take(folder, [gone, kept])
    _, lessons = shop.make_lessons()
    (lessons / PAIRS).rename(lessons / f"{aside_of(PAIRS)}x7")  # killed while it wrote the file again
    (folder / f"{aside_of(STORED)}q2").write_text(f"as {gone[-4:]} does")
    await store.delete("ann", gone)

    await follow_deletions(folder, store, DAYS)

    assert f"as {gone[-4:]} does" not in texts_in(folder)
    assert f"as {kept[-4:]} does" in (lessons / TEXTS).read_text()


async def test_a_damaged_adapter_hinders_nobody(store: TraceDatabase, shop: Workshop, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    [gone] = await keep(store, 1)
    damaged, whole = (add_adapter(shop.registry, folder, name, traces=(gone,)) for name in ("one", "two"))
    (folder / "adapters" / damaged / "adapter_model.safetensors").write_text("other weights")
    await store.delete("ann", gone)

    assert await follow_deletions(folder, store, DAYS) == 1
    assert shop.registry.manifest(whole).withdrawn == (gone,)
