"""From the constraints of a request to one grammar under which its texts are sampled.

What does not fit together is left out, the demand that changes texts most first. A JSON Schema or a closed set of texts
comes alone, because llguidance cannot intersect it with anything.
"""

from collections.abc import Sequence
from dataclasses import replace

from service.constraints.algebra import (
    Compiled,
    Constraint,
    Distortion,
    Json,
    LeftOut,
    Matches,
    OneOf,
    Unstated,
)
from service.constraints.building import Builder
from service.constraints.contradictions import refuse_contradictions
from service.constraints.flat import write_flat, write_open
from service.constraints.lexemes import quote
from service.constraints.plan import MOST_WORDS, Misfit, is_one_expression, make_plan, needs_words

TOKENS_PER_WORD = 1.8
"""Tokens of a word with its space and its punctuation, for English and today's tokenizers; on the safe side."""
MOST_CHARACTERS = 100_000
"""Of a grammar. llguidance takes five times that."""
_SHORTEST_LANDING = 8
"""Words below which a text is not made to land: a label or a number needs no sentence."""


def compile_constraints(
    constraints: Sequence[Constraint],
    *,
    max_tokens: int | None = None,
    tokens_per_word: float = TOKENS_PER_WORD,
    most: Distortion = Distortion.STRONG,
    gives_prefix: bool = True,
    spaced: bool = True,
    prose: bool = True,
) -> Compiled:
    """Compile what fits together, and say what was left out. Raises Contradiction if two constraints cannot both hold.

    max_tokens: the text must end by then, with a whole sentence. None for no such end.
    tokens_per_word: of the model's tokenizer, with the space and the punctuation.
    most: constraints that distort more are left out.
    gives_prefix: whether the engine can begin the reply with a given text. Otherwise the grammar begins with it.
    spaced: whether the text will be in a script with spaces between words. Rules about words need that.
    prose: whether the text will be prose. Rules about words and lines cannot be enforced on code.
    """
    refuse_contradictions(constraints)
    left, kept = list[LeftOut](), list[Constraint]()
    for constraint in constraints:
        if isinstance(constraint.demand, Unstated):
            left.append(LeftOut(constraint, constraint.demand.reason))
        elif constraint.distortion > most:
            left.append(LeftOut(constraint, "it would change the text too much"))
        elif not prose and isinstance(constraint.demand, Matches) and constraint.demand.anywhere:
            left.append(LeftOut(constraint, "the text is code"))
        else:
            kept.append(constraint)
    for kind in (Json, OneOf):
        whole = next((constraint for constraint in kept if isinstance(constraint.demand, kind)), None)
        if whole is not None:
            others = [LeftOut(each, f"the whole text is under {whole.rule}") for each in kept if each is not whole]
            return _compile_whole(whole, [*left, *others])
    cap = None if max_tokens is None else int(max_tokens / tokens_per_word)
    if cap is not None and (not spaced or not prose or cap < _SHORTEST_LANDING):
        cap = None
    while True:
        try:
            made = _compile_text(kept, cap, gives_prefix=gives_prefix, words=spaced and prose)
        except Misfit as misfit:
            kept.remove(misfit.constraint)
            left.append(LeftOut(misfit.constraint, misfit.reason))
        else:
            return replace(made, enforced=tuple(kept), left_out=tuple(left))


def _compile_whole(constraint: Constraint, left: Sequence[LeftOut]) -> Compiled:
    match constraint.demand:
        case Json(schema):
            return Compiled(schema=schema, enforced=(constraint,), left_out=tuple(left))
        case OneOf(options):
            return Compiled(choices=options, enforced=(constraint,), left_out=tuple(left))
        case _:
            raise TypeError


def _compile_text(constraints: Sequence[Constraint], cap: int | None, *, gives_prefix: bool, words: bool) -> Compiled:
    too_long = cap is None or cap > MOST_WORDS
    if not constraints and too_long:
        return Compiled()
    if (too_long or is_one_expression(constraints)) and not needs_words(constraints):
        return write_flat(constraints, gives_prefix=gives_prefix)
    if not words:
        dearest = max((each for each in constraints if needs_words([each])), key=lambda each: each.distortion)
        raise Misfit(dearest, "the text is code, or in a script without spaces")
    plan = make_plan(constraints, cap)
    grammar = write_open(plan) if plan.cap is None else Builder(plan).build()
    if len(grammar) > MOST_CHARACTERS:
        raise Misfit(max(constraints, key=lambda each: each.distortion), "the grammar is too large")
    given = ""
    if plan.prefix:
        given = f'"{plan.prefix}' if plan.lexicon.quoted else plan.prefix
    if given and not gives_prefix:
        head, _, rules = grammar.partition("\n")
        grammar = f"{head.replace('start: ', 'start: GIVEN ')}\nGIVEN: {quote(given)}\n{rules}"
        given = ""
    return Compiled(grammar=grammar, given_prefix=given)
