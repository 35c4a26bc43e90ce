"""Loading vLLM's engine, with the arguments that Redraft chooses."""

import asyncio
import json
import logging
import multiprocessing
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.engines.local.reasoning import parser_name
from service.engines.served import AdapterRoom, EngineMisconfigured
from service.engines.thoughts import Thinking

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

log = logging.getLogger(__name__)

CPU_CONTEXT_TOKENS = 8192
"""The context on a CPU unless the settings name another: one batch must hold it whole (see _arguments)."""

GUIDANCE = "guidance"
"""vLLM's name for llguidance. An engine has one structured-output backend for its whole life, and only this one can
intersect what several rules demand (docs/design/decisions/0036-llguidance.md)."""

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM can be started with; smaller adapters fit in."""

OUTPUT_LAYER = "lm_head"

NO_BFLOAT16 = ("DEFAULT", "AVX2")
"""The capabilities, as PyTorch names them, of x86 processors that emulate bfloat16 number by number."""


async def load_in_thread(model: str, name: str, arguments: Mapping[str, Any], thinking: Thinking) -> "AsyncLLM":
    """Load in a thread. On cancellation, end the processes that the thread has started and wait for it: a thread cannot
    be cancelled, but it fails at once without its processes."""
    loading = asyncio.ensure_future(asyncio.to_thread(_load, model, name, arguments, thinking))
    try:
        return await asyncio.shield(loading)
    except asyncio.CancelledError:
        while not loading.done():
            for process in multiprocessing.active_children():
                process.terminate()
            await asyncio.wait([loading], timeout=0.1)
        if loading.exception() is None:
            await asyncio.to_thread(loading.result().shutdown, 5.0)
        raise


def _load(model: str, name: str, arguments: Mapping[str, Any], thinking: Thinking) -> "AsyncLLM":
    if Path(model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # else a start without a network hangs on look-ups
    begun = time.perf_counter()
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    log.info("vllm imported", extra={"seconds": round(time.perf_counter() - begun, 1)})
    # The default context would halve the batch: it is meant for offline use.
    made = _arguments(model, name, arguments)
    named = {"reasoning_parser": parser_name(made, thinking)}
    made.structured_outputs_config = {**named, **made.structured_outputs_config}
    config = made.create_engine_config(UsageContext.OPENAI_API_SERVER)
    _make_room_for_images(config)
    return AsyncLLM.from_vllm_config(
        config,
        usage_context=UsageContext.OPENAI_API_SERVER,
        enable_log_requests=made.enable_log_requests,
        disable_log_stats=made.disable_log_stats,
    )


def _arguments(model: str, name: str, arguments: Mapping[str, Any]) -> "AsyncEngineArgs":
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform

    chosen: dict[str, Any] = {
        "model": model,
        "served_model_name": name,
        "scheduling_policy": "priority",
        "use_tqdm_on_load": False,
        "structured_outputs_config": {"backend": GUIDANCE, "disable_any_whitespace": True},
        "scheduler_cls": "service.engines.local.grammars.make_scheduler",
    }
    if current_platform.is_cpu():
        model_config = AsyncEngineArgs(**{**chosen, **arguments}).create_model_config()
        length = model_config.max_model_len
        if "max_model_len" not in arguments:
            length = min(length, CPU_CONTEXT_TOKENS)
        chosen |= {
            "max_model_len": length,
            "dtype": "auto" if model_config.quantization else dtype_of_this_cpu(),
            "max_num_seqs": 64,  # more at once are slower together
            "block_size": 32,  # the smallest: prefix caching works in whole blocks
            "enforce_eager": True,  # ready 50 s sooner, and the same speed under load
            "worker_cls": "service.engines.local.lora.Worker",
            # A chunked prefill of a request with its own seed kills the CPU engine, so a batch takes any
            # prompt whole. (A GPU engine has no such fault and keeps vLLM's own choices.)
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": length,
            "mm_processor_cache_gb": 1,  # of processed images, here and in the engine's process
            "skip_mm_profiling": True,  # the cache has the size that it is given
        }
    return AsyncEngineArgs(**{**chosen, **arguments})


def dtype_of_this_cpu() -> str:
    """``cpu_dtype`` of the processor that this runs on."""
    import torch

    return cpu_dtype(platform.machine(), torch.backends.cpu.get_cpu_capability())


def cpu_dtype(machine: str, capability: str) -> str:
    """What the weights are computed in on a CPU: as the checkpoint has them, or ``float32`` where the processor cannot
    compute in bfloat16. That takes twice the memory, and a third of the time
    (docs/design/decisions/0065-float32-without-avx-512.md).

    machine: as ``platform.machine()`` names it. capability: as ``torch.backends.cpu.get_cpu_capability()`` does.

    >>> cpu_dtype("x86_64", "AVX2")
    'float32'
    """
    return "float32" if machine == "x86_64" and capability in NO_BFLOAT16 else "auto"


def _make_room_for_images(config: "VllmConfig") -> None:
    """Let a step take every image of its prompts. Where there is no room for one, vLLM cuts the prompt before it, and
    a chunked prefill of a request with its own seed kills the CPU engine (see _arguments).

    A step's prompts hold as many tokens as the batch does, and each may begin inside an image, which then is encoded as
    a whole for the part that the prefix cache does not have.
    """
    from vllm.multimodal import MULTIMODAL_REGISTRY
    from vllm.multimodal.encoder_budget import MultiModalBudget
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() or not config.model_config.supports_multimodal_inputs:
        return
    scheduler = config.scheduler_config
    sizes = MultiModalBudget(config, MULTIMODAL_REGISTRY, enable_cache=False).mm_max_toks_per_item
    largest = min(max(sizes.values(), default=0), config.model_config.max_model_len)
    room = scheduler.max_num_batched_tokens + scheduler.max_num_seqs * largest
    scheduler.max_num_encoder_input_tokens = scheduler.encoder_cache_size = room


def lora_arguments(adapters: Sequence[Path], room: AdapterRoom | None = None) -> Mapping[str, Any]:
    """What the engine must know about adapters at the start: how many slots they need, the largest rank, and which
    layers they change.

    adapters: the folders of those that are known. room: for those that come while the engine serves.

    One slot stays empty, because vLLM's CPU build applies the last one to requests without an adapter whenever a step
    also has requests with one (vllm-project/vllm#48421). Other layers are not prepared for adapters. Above all, the
    output layer is not: weighing a text in a step that has an adapter would end the CPU engine.

    Raises EngineMisconfigured if an adapter changes that layer.
    """
    if not adapters and room is None:
        return {}
    stated = [json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")) for folder in adapters]
    rank = max([*(config["r"] for config in stated), *([room.rank] if room else [])])
    changed = {layer for config in stated for layer in config["target_modules"]} | (room.layers if room else set())
    if OUTPUT_LAYER in changed:
        raise EngineMisconfigured(f"an adapter changes {OUTPUT_LAYER}, which an engine that weighs texts cannot serve")
    return {
        "enable_lora": True,
        "max_loras": len(adapters) + (room.places if room else 0) + 1,
        "max_lora_rank": next((fitting for fitting in LORA_RANKS if fitting >= rank), rank),
        "lora_target_modules": sorted(changed),
    }
