"""Trains a LoRA adapter on lessons: the only file that imports PEFT, TRL and datasets, the extra ``learn``.

It runs as a process of its own, ``python -m service.learning.training ORDER``, where ORDER is the file of a
``TrainingOrder`` (trainer.py). It writes ``Progress`` to its standard output, a line of JSON each, and the adapter into
the order's folder.

First the model imitates the best texts (supervised fine-tuning), then it learns from the pairs, from there on (direct
preference optimization, Rafailov et al. 2023, arXiv 2305.18290), with the chosen text's own likelihood as a second
term: without it, pairs that differ little lower the probability of both texts (Pal et al. 2024, arXiv 2402.13228). A
text's loss is taken over its own tokens. Prompts have the tokens that the engine gives the model, and texts those that
were sampled, with the end token.
"""

import ctypes
import errno
import json
import math
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from service.engines.tokenization import ChatTokenizer
from service.learning.collected import read_lines
from service.learning.lessons import BestText, LessonPair
from service.learning.trainer import ADAPTER, GREEDY, PAIRS, TEXTS, Progress, TrainingOrder

GREEDY_PROMPTS, GREEDY_TOKENS = 8, 32
"""How many of its greedy texts the trainer leaves, for the exam to have the engine weigh them."""
NOT_SHOWN = -100
"""The label of a token that has no loss."""
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class NotFinite(Exception):
    """The loss is not a number."""


class NothingFits(Exception):
    """No lesson is short enough."""


class _Watcher(TrainerCallback):  # type: ignore[misc]  # transformers is not typed here
    """Says how far a stage has come, ends it when the time is up, and stops at a loss that is not a number."""

    def __init__(self, stage: str, until: float) -> None:
        self._stage = stage
        self._until = until

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if time.monotonic() > self._until:
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        loss = logs.get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise NotFinite
        shown = {key: float(value) for key, value in logs.items() if isinstance(value, int | float)}
        say(Progress(stage=self._stage, step=state.global_step, steps=state.max_steps, figures=shown))


class _PairsTrainer(DPOTrainer):  # type: ignore[misc]
    """A DPOTrainer for pairs whose tokens are known."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


class _Encoder:
    """Turns lessons into the tokens that the engine gives and gets."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._chat = ChatTokenizer(tokenizer)
        self._end = tokenizer.eos_token_id
        self._max_length = max_length

    def prompt(self, lesson: BestText | LessonPair) -> list[int]:
        return self._chat.prompt_ids(lesson.prompt.conversation, thinking=False)

    def reply(self, text: str, ids: Sequence[int] | None) -> list[int]:
        return [*(self._chat.encode(text) if ids is None else ids), self._end]

    def texts(self, lessons: Sequence[BestText]) -> list[dict[str, list[int]]]:
        rows = []
        for lesson in lessons:
            prompt, reply = self.prompt(lesson), self.reply(lesson.text, lesson.token_ids)
            if len(prompt) + len(reply) <= self._max_length:
                rows.append({"input_ids": prompt + reply, "labels": [NOT_SHOWN] * len(prompt) + reply})
        return rows

    def pairs(self, lessons: Sequence[LessonPair]) -> list[dict[str, list[int]]]:
        rows = []
        for lesson in lessons:
            row = {
                "prompt_ids": self.prompt(lesson),
                "chosen_ids": self.reply(lesson.chosen, lesson.chosen_ids),
                "rejected_ids": self.reply(lesson.rejected, lesson.rejected_ids),
            }
            if len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) <= self._max_length:
                rows.append(row)
        return rows


def train(order: TrainingOrder) -> None:
    """Train and write the adapter. Raises NotFinite, NothingFits, and what the libraries raise."""
    begun = time.monotonic()
    settings = order.training
    torch.manual_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(order.base)
    encoder = _Encoder(tokenizer, settings.max_length)
    texts = read_lines(order.lessons / TEXTS, BestText)
    text_rows, pair_rows = encoder.texts(texts), encoder.pairs(read_lines(order.lessons / PAIRS, LessonPair))
    if not text_rows and not pair_rows:
        raise NothingFits
    base = AutoModelForCausalLM.from_pretrained(order.base, dtype=torch.bfloat16 if _fast_bf16() else torch.float32)
    base.config.use_cache = False
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules="all-linear",
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, lora)
    say(Progress(stage="begin", step=0, steps=0, figures={"texts": len(text_rows), "pairs": len(pair_rows)}))
    until = begun + settings.seconds
    # Pairs get half of the time at most, so that they come to their turn.
    halfway = begun + settings.seconds * (0.6 if pair_rows and settings.pairs_epochs else 1.0)
    if text_rows and settings.texts_epochs:
        _learn_texts(model, tokenizer, text_rows, order, halfway)
    if pair_rows and settings.pairs_epochs and time.monotonic() < until:
        _learn_pairs(model, tokenizer, pair_rows, order, until)
    model.eval()
    _refuse_not_finite(model)
    model.save_pretrained(order.folder / ADAPTER, selected_adapters=["default"])
    prompts = [encoder.prompt(lesson) for lesson in texts[:GREEDY_PROMPTS]]
    _write_greedy(model, tokenizer, prompts, order.folder / GREEDY)


def _learn_texts(model: PeftModel, tokenizer: Any, rows: list[Any], order: TrainingOrder, until: float) -> None:
    settings = order.training
    config = SFTConfig(
        **_common(order, "texts"),
        learning_rate=settings.texts_rate,
        num_train_epochs=settings.texts_epochs,
        max_length=settings.max_length,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(
        model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        callbacks=[_Watcher("texts", until)],
    )  # fmt: skip
    trainer.train()


def _learn_pairs(model: PeftModel, tokenizer: Any, rows: list[Any], order: TrainingOrder, until: float) -> None:
    settings = order.training
    config = DPOConfig(
        **_common(order, "pairs"),
        learning_rate=settings.pairs_rate,
        num_train_epochs=settings.pairs_epochs,
        max_length=settings.max_length,
        beta=settings.beta,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, settings.imitation],
    )
    trainer = _PairsTrainer(
        model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        callbacks=[_Watcher("pairs", until)],
    )  # fmt: skip
    trainer.train()


def _common(order: TrainingOrder, stage: str) -> dict[str, Any]:
    bf16 = _fast_bf16()
    return {
        "output_dir": str(order.folder / stage),
        "per_device_train_batch_size": order.training.batch,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 2,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # else a loss that is not a number is hidden
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": order.training.seed,
        "bf16": bf16,
        "gradient_checkpointing": False,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def _fast_bf16() -> bool:
    """Whether the hardware computes with bfloat16 itself."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _refuse_not_finite(model: PeftModel) -> None:
    if not all(bool(torch.isfinite(weights).all()) for weights in model.parameters() if weights.requires_grad):
        raise NotFinite


def _write_greedy(model: PeftModel, tokenizer: Any, prompts: Sequence[list[int]], path: Path) -> None:
    """What the trained model writes by itself, without sampling."""
    model.config.use_cache = True
    found = []
    for prompt in prompts:
        with torch.no_grad():
            ids = model.generate(
                input_ids=torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                do_sample=False,
                max_new_tokens=GREEDY_TOKENS,
            )
        text = tokenizer.decode(ids[0, len(prompt) :], skip_special_tokens=True)
        found.append({"prompt": prompt, "text": text})
    path.write_text(json.dumps(found), encoding="utf-8")


def say(progress: Progress) -> None:
    """Write a line for the process that waits."""
    print(progress.model_dump_json(), flush=True)  # noqa: T201 - it is what the process is for


def main(path: Path) -> int:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    order = TrainingOrder.model_validate_json(path.read_bytes())
    if os.getppid() != order.parent:
        return 1
    try:
        train(order)
    except NotFinite:
        return _fail("the loss is not a number any more: lower the rates of the recipe")
    except NothingFits:
        return _fail("no lesson fits into the recipe's max_length tokens")
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return _fail(f"the disk is full: {error.filename or order.folder}" if full else str(error))
    except MemoryError:
        return _fail("the memory is too small: lower the recipe's batch or max_length")
    say(Progress(stage="end", step=0, steps=0))
    return 0


def _fail(reason: str) -> int:
    say(Progress(stage="failed", step=0, steps=0, reason=reason))
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
