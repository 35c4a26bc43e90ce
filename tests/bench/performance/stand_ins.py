"""Stand-ins for a chat server, a tokenizer and what was measured."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.performance.account import Account
from bench.performance.results import Cell, Counted, Key, Origin, Rates, Wave

CELL = Cell(512, 2)
ORIGIN = Origin("a-model", "abc1234", "a machine", "vllm 1", 3, {"method": "ngram"})


def make_tokens(count: int, start: int = 0) -> list[int]:
    """So many tokens, none of which begins another such run."""
    return list(range(start, start + count))


@dataclass
class ChatServer:
    """Answers every chat completion with a numbered text, and keeps what it was asked."""

    asked: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/chat/completions"
        self.asked.append(json.loads(request.content))
        text = f"text {len(self.asked)}"
        return httpx.Response(
            200, json={"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": len(self.asked)}}
        )


def open_client(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://server")


@dataclass
class Characters:
    """A tokenizer whose tokens are characters; a template that puts a letter before each message."""

    all_special_ids: list[int] = field(default_factory=lambda: [1, 2])

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(character) for character in text]

    def decode(self, token_ids: list[int]) -> str:
        return "".join(map(chr, token_ids))

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        assert not tokenize
        assert add_generation_prompt
        return "".join(message["role"][0] + message["content"] for message in conversation) + "a"


def make_wave(arm: str = "redraft", wall: float = 10.0, *, repetition: int = 0, lengths: str = "fixed") -> Wave:
    """Of two programs. Never seen were 1,000 tokens, decoded 950."""
    counted = Counted(calls=10, prompt_tokens=3_000, cached=1_900, generated=960, preemptions=0)
    tokens = Account(10, 3_000, 1_900, never_seen=1_000, rounding=60)
    return Wave(Key(CELL, repetition, lengths, arm), 0, wall, (wall - 1, wall), counted, tokens, strangers=0.25)


RATES = [
    Rates(CELL, prefill=1_000, decode=190),
    Rates(CELL, 500, 190),
    Rates(CELL, 2_000, 190),
    Rates(Cell(1, 1), 1, 1),
]
