"""Merges an adapter into its base. With training.py, it is the only file that imports PEFT.

It runs as a process of its own (process.py), which is given the file of a ``MergeOrder`` (merger.py). It writes the
checkpoint into the order's folder: the weights, in the data type of the base's, and the base's other files as they are.
Then it loads what it has written, and compares its predictions with those of the base with the adapter, where that
writes greedy texts for a few prompts.
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch.nn.functional import kl_div
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from service.engines.conversation import Conversation, Turn
from service.engines.tokenization import ChatTokenizer
from service.learning.merger import CHECKPOINT, MergeOrder
from service.learning.process import Progress, die_with, explain, fail, say

PROMPTS = (
    "Write two sentences about the sea.",
    "List three fruits, one in each line.",
    "What is the capital of France?",
    "Explain in one sentence why the sky is blue.",
)
TOKENS = 16
"""How long the texts are, at most."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
INDEX = ".index.json"
"""How the names of files end that say where weights are."""


class NotFinite(Exception):
    """The predictions are not numbers."""


def merge(order: MergeOrder) -> None:
    """Write the checkpoint and say how it compares. Raises NotFinite, and what the libraries raise."""
    chat = ChatTokenizer(AutoTokenizer.from_pretrained(order.base))
    prompts = [chat.prompt_ids(Conversation(Turn("user", prompt)), thinking=False) for prompt in PROMPTS]
    say(Progress(stage="merge"))
    model = PeftModel.from_pretrained(_load(order.base), str(order.adapter)).eval()
    texts = [(len(prompt), _write(model, prompt)) for prompt in prompts]
    adapted = _predict(model, texts)
    with model.disable_adapter():
        plain = _predict(model, texts)
    checkpoint = order.folder / CHECKPOINT
    model.merge_and_unload().save_pretrained(checkpoint)
    del model
    _copy_others(order.base, checkpoint)
    say(Progress(stage="compare"))
    merged = _predict(_load(checkpoint), texts)
    same = (merged.argmax(-1) == adapted.argmax(-1)).float().mean()
    figures = {
        "tokens": float(len(adapted)), "same": float(same),
        "moved": _distance(adapted, plain), "off": _distance(adapted, merged),
    }  # fmt: skip
    if not all(math.isfinite(figure) for figure in figures.values()):
        raise NotFinite
    say(Progress(stage="end", figures=figures))


def _load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def _write(model: Any, prompt: Sequence[int]) -> torch.Tensor:
    """A prompt with the greedy text that a model writes to it."""
    ids = torch.tensor([prompt])
    with torch.no_grad():
        written: torch.Tensor = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS
        )
    return written


def _predict(model: Any, texts: Sequence[tuple[int, torch.Tensor]]) -> torch.Tensor:
    """A model's log-probabilities of every token at each place of texts after their prompts, whose lengths are given
    with them: the shape is (places, vocabulary)."""
    with torch.no_grad():
        logits = [model(ids).logits[0, begin - 1 : -1] for begin, ids in texts]
    return torch.cat(logits).float().log_softmax(-1)


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """The mean Kullback-Leibler divergence of the other predictions from the one, in nats."""
    return float(kl_div(other, one, log_target=True, reduction="batchmean"))


def _copy_others(base: Path, checkpoint: Path) -> None:
    """Copy the base's configuration, tokenizer and all else that is not weights, over what PEFT's model would say."""
    for path in base.iterdir():
        if path.is_file() and path.suffix not in WEIGHTS and not path.name.endswith(INDEX):
            shutil.copyfile(path, checkpoint / path.name)


def main(path: Path) -> int:
    order = MergeOrder.model_validate_json(path.read_bytes())
    if not die_with(order.parent):
        return 1
    disable_progress_bar()
    try:
        merge(order)
    except NotFinite:
        return fail("the base with the adapter, or merged with it, predicts what is not a number")
    except OSError as error:
        return fail(explain(error, order.folder))
    except SafetensorError as error:
        return fail(f"weights cannot be read or written: {error}")
    except MemoryError:
        return fail("the memory is too small for the model")
    return 0
