"""What serves is one pointer: it moves at once or not at all, and only to what has passed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.learning.collected import DamagedFile
from service.learning.gate import Decision
from service.learning.registry import Refused, Registry
from service.learning.workshop import Workshop
from tests.support.adapters import add_adapter

ROOT = Path(__file__).parents[2]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def add(registry: Registry, folder: Path, weights: str, *decisions: Decision, **fields: Any) -> str:
    """An adapter with an exam for each decision, that is older the earlier its weights are in the alphabet."""
    return add_adapter(registry, folder, weights, *decisions, **{"created": weights, **fields})


def test_an_adapter_that_has_passed_serves_and_a_rollback_returns(registry: Registry, tmp_path: Path) -> None:
    assert registry.current == ""
    first = add(registry, tmp_path, "one", "promote")
    registry.promote(first)
    assert registry.current == first
    assert (tmp_path / "current/adapter_model.safetensors").read_text() == "one"

    second = add(registry, tmp_path, "two", "promote", against=first)
    registry.promote(second)
    assert registry.current == second
    assert registry.rollback() == first == registry.current
    assert registry.rollback() == second == registry.current


def test_a_rollback_of_the_first_promotion_leaves_the_base(registry: Registry, tmp_path: Path) -> None:
    registry.promote(add(registry, tmp_path, "one", "promote"))

    assert registry.rollback() == ""
    assert registry.current == ""
    assert not (tmp_path / "current").exists()


@pytest.mark.parametrize(
    ("decisions", "fields", "reason"),
    [
        ([], {}, "has not sat an exam"),
        (["reject"], {}, "verdict is reject"),
        (["promote", "inconclusive"], {}, "verdict is inconclusive"),
        (["promote"], {"against": "another"}, "against another model"),
        (["promote"], {"tainted": "consent was withdrawn"}, "consent was withdrawn"),
    ],
)
def test_nothing_else_is_promoted_unless_forced_which_is_written_down(
    registry: Registry, tmp_path: Path, decisions: list[Decision], fields: dict[str, Any], reason: str
) -> None:
    digest = add(registry, tmp_path, "one", *decisions, **fields)
    with pytest.raises(Refused, match=reason):
        registry.promote(digest)
    assert registry.current == ""

    registry.promote(digest, force=True)
    assert registry.current == digest
    [manifest] = registry.list()
    assert manifest.forced


def test_a_damaged_adapter_is_neither_promoted_nor_returned_to(registry: Registry, tmp_path: Path) -> None:
    first = add(registry, tmp_path, "one", "promote")
    registry.promote(first)
    registry.promote(add(registry, tmp_path, "two", "promote", against=first))
    (tmp_path / "adapters" / first / "adapter_model.safetensors").write_text("half")

    with pytest.raises(DamagedFile, match="is damaged"):
        registry.rollback()
    with pytest.raises(DamagedFile, match="is damaged"):
        registry.promote(first)
    assert registry.current != first


def test_unknown_adapters_and_a_rollback_of_nothing_are_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no adapter nothing; there are: none yet"):
        registry.promote("nothing")
    with pytest.raises(Refused, match="there is no adapter"):
        registry.promote("../adapters")
    with pytest.raises(Refused, match="nothing was promoted"):
        registry.rollback()


def test_a_rollback_waits_for_no_training(registry: Registry, tmp_path: Path) -> None:
    registry.promote(add(registry, tmp_path, "one", "promote"))
    with Workshop(tmp_path, tmp_path).alone():
        assert registry.rollback() == ""


def test_a_configuration_without_a_rank_is_damaged(registry: Registry, tmp_path: Path) -> None:
    digest = add(registry, tmp_path, "one")
    assert registry.shape(digest) == (8, frozenset({"q_proj", "v_proj"}))
    for content in ("{}", "[]", '{"r": "8", "target_modules": []}', "half"):
        (tmp_path / "adapters" / digest / "adapter_config.json").write_text(content)
        with pytest.raises(DamagedFile, match="is not the configuration of an adapter"):
            registry.shape(digest)


def test_a_folder_without_weights_is_not_an_adapter(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DamagedFile, match=r"adapter_config\.json cannot be read"):
        registry.add(tmp_path / "empty", lambda digest: pytest.fail("there is nothing to describe"))


def test_the_same_weights_are_one_adapter(registry: Registry, tmp_path: Path) -> None:
    assert add(registry, tmp_path, "one", "promote") == add(registry, tmp_path, "one")
    [manifest] = registry.list()
    assert manifest.passed


def test_each_exam_has_its_own_count_of_attempts(registry: Registry) -> None:
    assert [registry.count_attempt(exam) for exam in ("a", "a", "b", "a")] == [1, 2, 1, 3]


def test_a_reader_finds_a_whole_adapter_whenever_it_looks(registry: Registry, tmp_path: Path) -> None:
    """Another process moves the pointer all the time, and is killed in the middle of it."""
    digests = [add(registry, tmp_path, weights, "promote") for weights in ("one", "two")]
    program = (
        "import sys\nfrom pathlib import Path\nfrom service.learning.registry import Registry\n"
        "registry = Registry(Path(sys.argv[1]))\nprint('ready', flush=True)\n"
        "while True:\n    [registry.promote(digest, force=True) for digest in sys.argv[2:]]"
    )
    registry.promote(digests[0])
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path, *digests], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(300):
            assert os.path.basename(os.readlink(tmp_path / "current")) in digests
            assert (tmp_path / "current/adapter_model.safetensors").read_text() in ("one", "two")
    finally:
        process.kill()
        process.communicate()
    assert registry.current in digests
    assert registry.rollback() in (*digests, "")
