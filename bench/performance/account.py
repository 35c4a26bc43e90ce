"""The token account: which prompt tokens had to be computed, and which were computed beyond that."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

BLOCK_TOKENS = 32
"""Prefix caching works in whole blocks; both servers are set to this size."""


@dataclass(frozen=True)
class Call:
    """One engine call. ``cached``: prompt tokens that came from the cache; None where the caller cannot know."""

    prompt: Sequence[int]
    reply: Sequence[int]
    cached: int | None = None


@dataclass(frozen=True)
class Account:
    """Prompt tokens of calls.

    never_seen: had to be computed. rounding: had been computed before, but no cache of whole blocks could give
    them. cached: came from the cache.
    """

    calls: int
    prompt_tokens: int
    cached: int
    never_seen: int
    rounding: int

    @property
    def computed(self) -> int:
        return self.prompt_tokens - self.cached

    @property
    def excess(self) -> int:
        """Tokens that were computed again although a cache of whole blocks that forgets nothing would have had them.

        Negative where the cache had tokens from before the first of these calls.
        """
        return self.computed - self.never_seen - self.rounding


class _Node(dict[int, "_Node"]):
    __slots__ = ()


def account(calls: Iterable[Call]) -> Account:
    """The account of calls in the order in which they were sent. Calls with unknown ``cached`` count as uncached.

    Every sequence of tokens that has been computed is a path of one trie. A call's prompt tokens below the depth to
    which its prompt follows known paths were never seen. After the call its prompt and its reply are known, but for
    the reply's last token: it was sampled, and nothing was computed from it. A call cannot contain a reply that was
    not over when it was sent, so the order of sending is enough.

    Of the tokens seen before, the engine can take whole blocks from its cache, and never the prompt's last token,
    whose output is what it samples from. What is left of them is rounding.
    """
    known = _Node()
    count = prompt_tokens = cached = never_seen = rounding = 0
    for call in calls:
        node, seen = known, 0
        for token in call.prompt:
            if token not in node:
                break
            node, seen = node[token], seen + 1
        for token in (*call.prompt[seen:], *call.reply[:-1]):
            node = node.setdefault(token, _Node())
        count += 1
        prompt_tokens += len(call.prompt)
        cached += call.cached or 0
        never_seen += len(call.prompt) - seen
        rounding += seen - min(seen, len(call.prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    return Account(count, prompt_tokens, cached, never_seen, rounding)
