"""From the constraints of a request to one grammar under which its texts are sampled."""

from collections.abc import Sequence

from service.constraints.algebra import Compiled, Constraint, Distortion, LeftOut

TOKENS_PER_WORD = 1.5
"""Tokens of a word with its space and its punctuation, for English and today's tokenizers; on the safe side."""


def compile_constraints(
    constraints: Sequence[Constraint],
    *,
    max_tokens: int | None = None,
    tokens_per_word: float = TOKENS_PER_WORD,
    most: Distortion = Distortion.STRONG,
    gives_prefix: bool = True,
) -> Compiled:
    """Compile what fits together, and say what was left out. Raises Contradiction if two constraints cannot both hold.

    max_tokens: the text must end by then, with a whole sentence. None for no such end.
    tokens_per_word: of the model's tokenizer, with the space and the punctuation.
    most: constraints that distort more are left out.
    gives_prefix: whether the engine can begin the reply with a given text. Otherwise the grammar begins with it.
    """
    return Compiled(left_out=tuple(LeftOut(constraint, "not yet compiled") for constraint in constraints))
