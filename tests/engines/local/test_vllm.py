"""What the engine in this process decides before it loads anything."""

import json
from pathlib import Path

import pytest

from service.engines.local.vllm import lora_arguments


@pytest.mark.parametrize(("ranks", "rank"), [([4], 8), ([8, 8], 8), ([16, 4, 33], 64), ([512], 512), ([600], 600)])
def test_the_engine_is_started_for_all_adapters(tmp_path: Path, ranks: list[int], rank: int) -> None:
    folders = [tmp_path / str(index) for index in range(len(ranks))]
    for folder, stated in zip(folders, ranks, strict=True):
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"r": stated}))

    found = lora_arguments(folders)

    assert found == {"enable_lora": True, "max_loras": len(ranks), "max_lora_rank": rank}


def test_without_adapters_the_engine_is_not_burdened_with_any() -> None:
    assert lora_arguments([]) == {}
