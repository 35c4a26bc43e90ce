"""What the engine in this process decides before it loads anything."""

import json
import sys
from pathlib import Path

import pytest

from service.engines.local.loading import cpu_dtype, lora_arguments
from service.engines.local.vllm import VllmEngine
from service.engines.served import AdapterRoom, EngineMisconfigured


def write_config(folder: Path, rank: int, layers: list[str]) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "target_modules": layers}))


@pytest.mark.parametrize(("ranks", "rank"), [([4], 8), ([8, 8], 8), ([16, 4, 33], 64), ([512], 512), ([600], 600)])
def test_the_engine_has_a_slot_for_each_adapter_and_an_empty_one(tmp_path: Path, ranks: list[int], rank: int) -> None:
    folders = [tmp_path / str(index) for index in range(len(ranks))]
    for folder, stated in zip(folders, ranks, strict=True):
        folder.mkdir()
        write_config(folder, stated, ["q_proj", "down_proj"])

    found = lora_arguments(folders)

    assert found == {
        "enable_lora": True,
        "max_loras": len(ranks) + 1,
        "max_lora_rank": rank,
        "lora_target_modules": ["down_proj", "q_proj"],
    }


def test_an_adapter_of_the_output_layer_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path, 8, ["q_proj", "lm_head"])
    with pytest.raises(EngineMisconfigured, match="lm_head"):
        lora_arguments([tmp_path])


def test_there_is_room_for_adapters_to_come(tmp_path: Path) -> None:
    write_config(tmp_path, 16, ["q_proj"])
    room = AdapterRoom(places=3, rank=8, layers=frozenset({"o_proj", "q_proj"}))

    alone, together = lora_arguments([], room), lora_arguments([tmp_path], room)

    assert (alone["max_loras"], alone["max_lora_rank"]) == (4, 8)
    assert (together["max_loras"], together["max_lora_rank"]) == (5, 16)
    assert alone["lora_target_modules"] == together["lora_target_modules"] == ["o_proj", "q_proj"]


def test_without_adapters_the_engine_is_not_burdened_with_any() -> None:
    assert lora_arguments([]) == {}


@pytest.mark.parametrize(
    ("machine", "capability", "dtype"),
    [
        ("x86_64", "AVX2", "float32"),
        ("x86_64", "DEFAULT", "float32"),
        ("x86_64", "AVX512", "auto"),
        ("aarch64", "DEFAULT", "auto"),
        ("aarch64", "SVE256", "auto"),
    ],
)
def test_a_processor_that_cannot_compute_in_bfloat16_computes_in_float32(
    machine: str, capability: str, dtype: str
) -> None:
    assert cpu_dtype(machine, capability) == dtype


async def test_where_vllm_is_not_installed_the_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)

    with pytest.raises(EngineMisconfigured, match=r"redraft\[server,gpu\]"):
        await VllmEngine.start("a model", "a name", {})
