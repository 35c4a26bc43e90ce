"""Adapters on a CPU, computed for all of their rows at once."""

from collections.abc import Sequence

import pytest
import torch

layers = pytest.importorskip("vllm.lora.layers")

from service.engines.local.lora import LoraBySlot  # noqa: E402 - needs vLLM

SLOTS, RANK, INPUTS, OUTPUTS = 3, 2, 5, (4, 3)
FIRST, SECOND = 11, 12
"""The ids of two adapters, which are in the first two slots."""

A = tuple(torch.randn(SLOTS, 1, RANK, INPUTS) for _ in OUTPUTS)
B = tuple(torch.randn(SLOTS, 1, size, RANK) for size in OUTPUTS)


def change(adapters: Sequence[int], y: torch.Tensor, x: torch.Tensor, *, is_prefill: bool = True) -> None:
    """Compute a layer of a step whose rows have these adapters; 0 means no adapter."""
    mapping = layers.LoRAMapping(tuple(adapters), tuple(adapters), is_prefill)
    computed = LoraBySlot(max_num_batched_tokens=8, max_batches=8, device="cpu")
    computed.update_metadata(mapping, [FIRST, SECOND, None], SLOTS, 100)
    computed.add_lora_linear(y, x, A, B, 0.5, OUTPUTS)


def expected(slot: int, x: torch.Tensor) -> torch.Tensor:
    """What an adapter changes in a row, by the definition."""
    return torch.cat([b[slot, 0] @ (a[slot, 0] @ x) * 0.5 for a, b in zip(A, B, strict=True)])


@pytest.mark.parametrize("is_prefill", [True, False])
@pytest.mark.parametrize(
    "adapters",
    [
        [FIRST, FIRST, FIRST],
        [0, 0, 0],
        [FIRST, 0, SECOND, 0, FIRST],
        [SECOND],
    ],
)
def test_each_row_is_changed_by_its_own_adapter_and_a_row_without_one_is_not(
    adapters: list[int], is_prefill: bool
) -> None:
    x, before = torch.randn(len(adapters), INPUTS), torch.randn(len(adapters), sum(OUTPUTS))
    y = before.clone()

    change(adapters, y, x, is_prefill=is_prefill)

    for row, adapter in enumerate(adapters):
        slot = {FIRST: 0, SECOND: 1}.get(adapter)
        wanted = before[row] if slot is None else before[row] + expected(slot, x[row])
        torch.testing.assert_close(y[row], wanted)


def test_small_changes_survive_weights_in_bfloat16() -> None:
    x, y = torch.ones(1, INPUTS, dtype=torch.bfloat16), torch.zeros(1, sum(OUTPUTS), dtype=torch.bfloat16)

    change([FIRST], y, x)

    torch.testing.assert_close(y[0], expected(0, torch.ones(INPUTS)).bfloat16())
