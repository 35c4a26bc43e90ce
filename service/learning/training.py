"""Trains a LoRA adapter on lessons: the only file that imports TRL and datasets, and with merging.py PEFT, which are
the extra ``learn``.

It runs as a process of its own (process.py), which is given the file of a ``TrainingOrder`` (trainer.py) and writes the
adapter into the order's folder.

First the model imitates the best texts (supervised fine-tuning), then it learns from the pairs, from there on (direct
preference optimization, Rafailov et al. 2023, arXiv 2305.18290), with the chosen text's own likelihood as a second
term: without it, pairs that differ little lower the probability of both texts (Pal et al. 2024, arXiv 2402.13228).
After that, or instead, it may try exercises: the engine writes a group of texts for each, with the weights of now, and
those that earn more than their group become more probable (group relative policy optimization, Shao et al. 2024, arXiv
2402.03300, without its bias towards long texts, Liu et al. 2025, arXiv 2503.20783).

A text's loss is taken over its own tokens (encoding.py).
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from trl.trainer import utils as trl_utils

from service.engines.served import AdapterUnusable, EngineMisconfigured
from service.errors import RedraftError
from service.learning.collected import read_lines
from service.learning.encoding import Encoder
from service.learning.exercises import Exercise
from service.learning.lessons import BestText, LessonPair
from service.learning.process import Progress, die_with, explain, fail, say
from service.learning.recipe import Trying
from service.learning.rewards import reward
from service.learning.sampler import Sampler, Save
from service.learning.trainer import ADAPTER, EXERCISES, GREEDY, PAIRS, TEXTS, TrainingOrder
from service.leash import Leash

GREEDY_PROMPTS, GREEDY_TOKENS = 8, 32
"""How many of its greedy texts the trainer leaves, for the exam to have the engine weigh them."""
LEARNED, REFERENCE = "default", "ref"
"""The names of the adapters in PEFT, as TRL expects them."""
SHARES = {"texts": 3, "pairs": 2, "exercises": 5}
"""How the stages share the time, so that each comes to its turn."""
GPU_SHARE = 0.4
"""The share of a GPU's memory that the sampling engine may take; the trainer needs the rest."""

# Without Triton TRL computes the output layer for prompts and padding too, and drops the result. On two cores that is a
# fifth of a step. It asks this function nothing else.
trl_utils._use_triton = lambda _: True


class NotFinite(Exception):
    """The loss is not a number."""


class NothingFits(Exception):
    """No lesson is short enough, or too few exercises are."""


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
        shown = {key: float(value) for key, value in logs.items() if _is_finite(value)}
        say(Progress(stage=self._stage, step=state.global_step, steps=state.max_steps, figures=shown))


class _TextsTrainer(SFTTrainer):  # type: ignore[misc]
    """An SFTTrainer whose loss is that of sampling at a temperature, as GRPOTrainer's is."""

    def __init__(self, model: PeftModel, *, temperature: float, **others: Any) -> None:
        super().__init__(model, **others)
        trl_utils.add_fused_lm_head(model.get_base_model(), temperature, outputs=("log_probs", "entropy", "is_top1"))


class _PairsTrainer(DPOTrainer):  # type: ignore[misc]
    """A DPOTrainer for pairs whose tokens are known."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


class _Attempts:
    """The model's texts for exercises, and what they earn, as a GRPOTrainer asks for them. To it a prompt is the number
    of an exercise."""

    def __init__(self, exercises: Sequence[Exercise], sampler: Sampler, encoder: Encoder, trying: Trying) -> None:
        self._exercises = exercises
        self._sampler = sampler
        self._encoder = encoder
        self._trying = trying

    def sample(self, prompts: Sequence[str], _: GRPOTrainer) -> dict[str, Any]:
        """The texts for prompts, each of which comes once for each text of its group."""
        exercises = [self._exercises[int(prompt)] for prompt in prompts]
        found = self._sampler.sample(exercises, self._trying)
        return {
            "prompt_ids": [self._encoder.prompt(exercise) for exercise in exercises],
            "completion_ids": [self._encoder.attempt(each) for each in found],
            "logprobs": None,  # the trainer's own serve: it has just written the engine's weights
            "earned": [
                reward(exercise, each.text, each.finish_reason) for exercise, each in zip(exercises, found, strict=True)
            ],
        }


def earned(*, earned: Sequence[float], **_: Any) -> Sequence[float]:
    return earned


def train(order: TrainingOrder) -> None:
    """Train and write the adapter. Raises NotFinite, NothingFits, and what the libraries raise."""
    begun = time.monotonic()
    settings = order.training
    torch.manual_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(order.base)
    encoder = Encoder(tokenizer, settings.max_length)
    texts = read_lines(order.lessons / TEXTS, BestText)
    text_rows = encoder.texts(texts) if settings.texts_epochs else []
    pair_rows = encoder.pairs(read_lines(order.lessons / PAIRS, LessonPair)) if settings.pairs_epochs else []
    exercises = _read_exercises(order, encoder)
    if not text_rows and not pair_rows and not exercises:
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
    rows = {"texts": text_rows, "pairs": pair_rows, "exercises": exercises}
    say(Progress(stage="begin", figures={stage: len(each) for stage, each in rows.items()}))
    ends = dict(_share(begun, settings.seconds, [stage for stage, each in rows.items() if each]))
    if text_rows:
        _learn_texts(model, tokenizer, text_rows, order, ends["texts"])
    if pair_rows:
        _learn_pairs(model, tokenizer, pair_rows, order, ends["pairs"])
    if exercises and settings.trying is not None:
        _try_exercises(model, tokenizer, encoder, exercises, order, ends["exercises"])
    model.eval()
    _refuse_not_finite(model)
    _weaken(model, settings.strength)
    model.save_pretrained(order.folder / ADAPTER, selected_adapters=[LEARNED])
    shown: Sequence[BestText | Exercise] = texts or exercises
    prompts = [encoder.prompt(each) for each in shown[:GREEDY_PROMPTS]]
    _write_greedy(model, tokenizer, prompts, order.folder / GREEDY)


def _read_exercises(order: TrainingOrder, encoder: Encoder) -> Sequence[Exercise]:
    trying = order.training.trying
    if trying is None:
        return []
    exercises = encoder.exercises(read_lines(order.lessons / EXERCISES, Exercise), trying.max_tokens)
    if len(exercises) < trying.exercises:  # not even for one step
        raise NothingFits
    return exercises


def _share(begun: float, seconds: float, stages: Sequence[str]) -> Iterator[tuple[str, float]]:
    """When each stage has to end. What one does not need is left to the next."""
    total, so_far = sum(SHARES[stage] for stage in stages), 0
    for stage in stages:
        so_far += SHARES[stage]
        yield stage, begun + seconds * so_far / total


def _learn_texts(model: PeftModel, tokenizer: Any, rows: list[Any], order: TrainingOrder, until: float) -> None:
    settings = order.training
    config = SFTConfig(
        **_common(order, "texts"),
        learning_rate=settings.texts_rate,
        num_train_epochs=settings.texts_epochs,
        max_length=settings.max_length,
        packing=False,
        train_sampling_strategy="group_by_length",  # else two fifths more tokens are padding
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = _TextsTrainer(
        model, temperature=settings.temperature, args=config, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer, callbacks=[_Watcher("texts", until)],
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


def _try_exercises(
    model: PeftModel,
    tokenizer: Any,
    encoder: Encoder,
    exercises: Sequence[Exercise],
    order: TrainingOrder,
    until: float,
) -> None:
    settings, trying = order.training, order.training.trying
    if trying is None:
        return
    if REFERENCE in model.peft_config:
        model.delete_adapter(REFERENCE)  # that of the pairs: the trainer makes another, which is the model of now
    config = GRPOConfig(
        **_common(order, "exercises") | {"per_device_train_batch_size": trying.samples},
        gradient_accumulation_steps=trying.exercises,  # a group at a time, and all of them in a step
        learning_rate=trying.rate,
        max_steps=trying.steps,
        num_generations=trying.samples,
        max_completion_length=trying.max_tokens,
        temperature=trying.temperature,
        beta=trying.kl,
        loss_type="dr_grpo",
        scale_rewards="batch",
    )
    rows = [{"prompt": str(number)} for number in range(len(exercises))]
    with Sampler(order.base, order.folder / "sampling", _saver(model), settings.seed, _engine_arguments()) as sampler:
        trainer = GRPOTrainer(
            model,
            earned,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            rollout_func=_Attempts(exercises, sampler, encoder, trying).sample,
            callbacks=[_Watcher("exercises", until)],
        )
        trainer.train()


def _saver(model: PeftModel) -> Save:
    return lambda folder: model.save_pretrained(folder, selected_adapters=[LEARNED])


def _engine_arguments() -> dict[str, Any]:
    return {"gpu_memory_utilization": GPU_SHARE} if torch.cuda.is_available() else {}


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


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _refuse_not_finite(model: PeftModel) -> None:
    if not all(bool(torch.isfinite(weights).all()) for weights in model.parameters() if weights.requires_grad):
        raise NotFinite


def _weaken(model: PeftModel, strength: float) -> None:
    """Multiply the change that the adapter makes to the model."""
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.mul_(strength)


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


def main(path: Path) -> int:
    order = TrainingOrder.model_validate_json(path.read_bytes())
    if not die_with(order.parent):
        return 1
    _ = Leash([-os.getpgrp()])  # the engine's processes too, which would keep its memory
    try:
        train(order)
    except NotFinite:
        return fail("the loss is not a number any more: lower the rates of the recipe")
    except NothingFits:
        return fail("no lesson fits into the recipe's max_length tokens, or too few exercises with its max_tokens")
    except OSError as error:
        return fail(explain(error, order.folder))
    except (AdapterUnusable, EngineMisconfigured, RedraftError) as error:
        return fail(f"the engine that tries the exercises: {error}")
    except MemoryError:
        return fail("the memory is too small: lower the recipe's batch or max_length")
    say(Progress(stage="end"))
    return 0
