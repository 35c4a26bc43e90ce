"""How long prompts are at most, at a server that counts tokens only in its answers.

A token has at least one byte of its text, so a text has no more tokens than bytes. That is about four times as many as
English has. But a server tells how long each prompt was, and most prompts extend an earlier one: then only what is new
is counted in bytes.
"""

from weakref import WeakKeyDictionary

from service.engines.conversation import Conversation, Turn

TURN_TOKENS = 16
"""What a chat template writes around a turn, and where it asks for a reply."""
PREAMBLE_TOKENS = 160
"""What a chat template may begin with by itself, such as a system prompt of its own."""
IMAGE_TOKENS = 16_384
"""The most for one image, with models that divide large images into many patches."""


class PromptLengths:
    """Learns from what a server says of each prompt.

    >>> lengths, asked = PromptLengths(), Conversation(Turn("user", "Hello!"))
    >>> lengths.most(asked)
    198
    >>> lengths.learn(asked, 30)
    >>> lengths.most(asked), lengths.most(asked.with_user("Well?"))
    (46, 51)
    """

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Conversation, int] = WeakKeyDictionary()

    def learn(self, conversation: Conversation, prompt_tokens: int) -> None:
        """Remember the length that the server told; 0 is not one."""
        if prompt_tokens:
            self._known[conversation] = prompt_tokens

    def most(self, conversation: Conversation) -> int:
        """The most tokens that the prompt for a reply to the conversation can have."""
        tokens, node = TURN_TOKENS, conversation
        while node not in self._known:
            tokens += _most_tokens(node.turn)
            if node.before is None:
                return tokens + PREAMBLE_TOKENS
            node = node.before
        return tokens + self._known[node]


def _most_tokens(turn: Turn) -> int:
    return TURN_TOKENS + len(turn.text.encode()) + IMAGE_TOKENS * len(turn.images)
