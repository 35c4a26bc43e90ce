"""A merged checkpoint appears whole or not at all, and only where it may."""

import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.learning.collected import DamagedFile
from service.learning.manifest import Agreement, Merged
from service.learning.merger import MergeFailed, Merger, refuse_different
from service.learning.registry import Refused
from service.learning.workshop import Workshop
from tests.support.adapters import Shop, make_base, make_merged

FAKE = """
import json, pathlib, sys
off, reason, order = sys.argv[1:]
checkpoint = pathlib.Path(json.loads(pathlib.Path(order).read_text())["folder"], "checkpoint")
checkpoint.mkdir()
(checkpoint / "model.safetensors").write_text("merged weights")
if reason:
    print(json.dumps({"stage": "failed", "reason": reason}))
    sys.exit(1)
print(json.dumps({"stage": "end", "figures": {"tokens": 64, "same": 1, "moved": 0.2, "off": float(off)}}))
"""


def fake(off: float = 0.001, reason: str = "") -> Merger:
    """A merger whose process merges nothing, and is ``off`` or fails."""
    return Merger([sys.executable, "-c", FAKE, str(off), reason])


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "shop", make_base(tmp_path / "base"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    return tmp_path / "shop"


def workshop(shop: Shop, merger: Merger | None = None) -> Workshop:
    return Workshop(shop.folder, shop.base, merger=merger or fake())


async def test_a_checkpoint_says_from_what_it_was_made(shop: Shop, tmp_path: Path) -> None:
    adapter, target = shop.promote("one"), tmp_path / "some/where"
    merged = await workshop(shop).merge(adapter, target)

    assert Merged.model_validate_json((target / "manifest.json").read_bytes()) == merged
    assert (merged.base, merged.adapter, merged.learned.adapter) == (shop.digest, adapter, adapter)
    assert merged.agreement == Agreement(tokens=64, same=1, moved=0.2, off=0.001)
    assert merged.checkpoint == Workshop(shop.folder, target).base_digest()
    assert not merged.forced
    card = (target / "README.md").read_text()
    assert f"The base {shop.digest} with the adapter {adapter} merged" in card
    assert "### Exam against the base: promote" in card
    assert (target / "model.safetensors").read_text() == "merged weights"
    assert target.stat().st_mode & 0o777 == 0o755
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("merger", "reason"),
    [
        (fake(reason="the disk is full"), "^the disk is full$"),
        (fake(off=0.1), r"they are 0.100 nats from it, and the base without the adapter 0.200"),
        (Merger(["false"]), "the merging process ended with exit code 1"),
        (Merger(["true"]), "the merging process left no checkpoint"),
    ],
)
async def test_a_failure_leaves_nothing(shop: Shop, tmp_path: Path, merger: Merger, reason: str) -> None:
    adapter = shop.promote("one")
    with pytest.raises(MergeFailed, match=reason):
        await workshop(shop, merger).merge(adapter, tmp_path / "merged/one")

    assert list((tmp_path / "merged").iterdir()) == []


async def test_what_a_killed_one_has_left_is_removed(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "merged/.merging-of-yesterday/checkpoint").mkdir(parents=True)
    await workshop(shop).merge(shop.promote("one"), tmp_path / "merged/one")

    assert [path.name for path in (tmp_path / "merged").iterdir()] == ["one"]


def damage(shop: Shop, adapter: str) -> None:
    (shop.folder / "adapters" / adapter / "adapter_model.safetensors").write_text("other weights")


def replace_base(shop: Shop, adapter: str) -> None:
    (shop.base / "config.json").write_text('{"hidden_size": 2}')


def quantize(shop: Shop, adapter: str) -> None:
    (shop.base / "config.json").write_text('{"quantization_config": {}}')
    shop.registry.amend(adapter, lambda now: now.model_copy(update={"base": shop.digest}))


def withdraw(shop: Shop, adapter: str) -> None:
    shop.registry.amend(adapter, lambda now: now.model_copy(update={"tainted": "a trace was withdrawn"}))


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        (damage, DamagedFile, "is damaged"),
        (replace_base, Refused, "was trained on another base"),
        (quantize, MergeFailed, "quantized"),
        (withdraw, Refused, "is not merged: a trace was withdrawn"),
    ],
)
async def test_what_cannot_be_merged_is_refused(
    shop: Shop, tmp_path: Path, change: Callable[[Shop, str], None], error: type[Exception], reason: str
) -> None:
    adapter = shop.promote("one")
    change(shop, adapter)
    with pytest.raises(error, match=reason):
        await workshop(shop).merge(adapter, tmp_path / "merged")

    assert not (tmp_path / "merged").exists()


async def test_an_adapter_that_has_not_passed_is_merged_by_force_alone(shop: Shop, tmp_path: Path) -> None:
    adapter = shop.add("one", verdicts=())
    with pytest.raises(Refused, match="is not merged: it has not sat an exam"):
        await workshop(shop).merge(adapter, tmp_path / "merged")
    merged = await workshop(shop).merge(adapter, tmp_path / "merged", force=True)

    assert merged.forced == "it has not sat an exam"
    assert "merged by force: it has not sat an exam" in (tmp_path / "merged/README.md").read_text()


async def test_nothing_is_written_over(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(MergeFailed, match="there exists already"):
        await workshop(shop).merge(shop.promote("one"), tmp_path / "there")


async def test_one_process_at_a_time_merges_in_a_folder(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(MergeFailed, match="another process merges in"):
            await fake().merge(base, tmp_path, tmp_path / "new", make_merged)
    finally:
        os.close(descriptor)


async def test_where_it_cannot_write_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MergeFailed, match="file"):
        await fake().merge(make_base(tmp_path / "base"), tmp_path, tmp_path / "file/new", make_merged)


async def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.learning.process.find_spec", lambda name: None)
    with pytest.raises(MergeFailed, match=r"merging needs peft, transformers: pip install 'redraft\[learn\]'"):
        await Merger().merge(tmp_path, tmp_path, tmp_path / "new", make_merged)


@pytest.mark.parametrize(
    ("moved", "off", "differs"), [(0.0, 0.009, False), (0.0, 0.011, True), (1.0, 0.09, False), (1.0, 0.11, True)]
)
def test_what_rounding_cannot_explain_is_refused(moved: float, off: float, differs: bool) -> None:
    agreement = Agreement(tokens=64, same=1.0, moved=moved, off=off)
    if differs:
        with pytest.raises(MergeFailed, match="do not predict what the base with the adapter does"):
            refuse_different(agreement)
    else:
        refuse_different(agreement)
