"""Adapters in the engine's worker on a CPU: two matrix products for all rows of an adapter at once.

vLLM's own way copies both matrices of every layer for every token. It loads this one through its setting
``worker_cls``, because what computes adapters has none (docs/design/decisions/0070-adapters-on-a-cpu.md).
"""

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform
from vllm.v1.worker.cpu_worker import CPUWorker


class Worker(CPUWorker):  # type: ignore[misc]  # vLLM is untyped here
    """vLLM's worker, which computes adapters by LoraBySlot."""

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        name = f"{LoraBySlot.__module__}.{LoraBySlot.__qualname__}"
        type(current_platform).get_punica_wrapper = staticmethod(lambda: name)
        super().load_model(load_dummy_weights=load_dummy_weights)


class LoraBySlot(PunicaWrapperCPU):  # type: ignore[misc]
    """For each adapter of a step, y += x A B for the rows that have it. Other rows are left alone."""

    _present: list[tuple[int, torch.Tensor | slice]]
    """The slots of the adapters in this step, each with the numbers of its rows, or a slice if it has all."""

    def update_metadata(self, *arguments: Any, **others: Any) -> None:
        super().update_metadata(*arguments, **others)
        slots = self.token_lora_indices
        found = slots.unique().tolist()
        rows = (slice(None) if len(found) == 1 else (slots == slot).nonzero().flatten() for slot in found)
        self._present = [(slot, which) for slot, which in zip(found, rows, strict=True) if slot >= 0]

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **others: Any,
    ) -> None:
        """Add to the outputs of a layer what adapters change in them.

        y: (rows, outputs), changed in place. x: (rows, inputs). lora_a_stacked: (slots, 1, rank, inputs), one for each
        part of the layer. lora_b_stacked: (slots, 1, outputs of the part, rank). output_slices: these outputs' sizes,
        in the order in which they lie in y.
        """
        inputs, outputs = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        for slot, rows in self._present:
            given = inputs[rows].float()
            for part, a, b in zip(outputs.split(output_slices, dim=1), lora_a_stacked, lora_b_stacked, strict=True):
                change = given @ a[slot, 0].T.float() @ b[slot, 0].T.float() * scale
                part[rows] += change.to(part.dtype)
