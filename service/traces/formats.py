"""Pairs as the lines of the files that trainers read.

- ``trl``: TRL's preference format, conversational, with an explicit prompt
  (https://huggingface.co/docs/trl/dataset_formats)
- ``openai``: OpenAI's format for direct preference optimization, which Azure, Fireworks and Together read too
  (https://developers.openai.com/api/docs/guides/direct-preference-optimization)
- ``sharegpt``: LLaMA-Factory's ShareGPT format with ranking (its data/README.md)

The first and the last ignore other columns, so their lines say where a pair is from. OpenAI's have no place for that.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from service.traces.pairs import Pair

Format = Literal["trl", "openai", "sharegpt"]
Line = Mapping[str, Any]

_SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}


def to_trl(pair: Pair) -> Line:
    return {
        "prompt": [dict(message) for message in pair.prompt],
        "chosen": [_reply(pair.chosen)],
        "rejected": [_reply(pair.rejected)],
        "provenance": _provenance(pair),
    }


def to_openai(pair: Pair) -> Line:
    return {
        "input": {"messages": [dict(message) for message in pair.prompt]},
        "preferred_output": [_reply(pair.chosen)],
        "non_preferred_output": [_reply(pair.rejected)],
    }


def to_sharegpt(pair: Pair) -> Line:
    return {
        "conversations": [
            {"from": _SHAREGPT_ROLES[message["role"]], "value": message["content"]} for message in pair.prompt
        ],
        "chosen": {"from": "gpt", "value": pair.chosen},
        "rejected": {"from": "gpt", "value": pair.rejected},
        "provenance": _provenance(pair),
    }


FORMATS: Mapping[Format, Callable[[Pair], Line]] = MappingProxyType(
    {"trl": to_trl, "openai": to_openai, "sharegpt": to_sharegpt}
)


def _reply(text: str) -> Mapping[str, str]:
    return {"role": "assistant", "content": text}


def _provenance(pair: Pair) -> Mapping[str, Any]:
    """The same fields with the same types in every line, as a table needs them."""
    return {
        "source": pair.source,
        "relation": pair.relation,
        "program": pair.program,
        "task": pair.task,
        "model": pair.model,
        "chosen": pair.chosen_id,
        "rejected": pair.rejected_id,
        "broken_rules": list(pair.broken_rules),
        "created_at": pair.created,
    }
