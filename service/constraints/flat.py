"""A grammar of characters, for demands that need not know where a word ends. It costs next to nothing per token."""

from collections.abc import Sequence

from service.constraints.algebra import Case, Compiled, Constraint, Counter, Excluded, Forbidden, Prefix, Quoted
from service.constraints.alphabet import LINE, LOOSE, PLAIN
from service.constraints.lexemes import Lexicon, exclude_from_text, quote
from service.constraints.plan import MOST_EXCLUDED, Misfit, Plan, excluding_word

MOST_CHARACTERS = 4_000


def write_flat(constraints: Sequence[Constraint], *, gives_prefix: bool) -> Compiled:
    """Compile constraints on characters and on the beginning. Raises Misfit."""
    lexicon, prefix, quoted, single_line = Lexicon(), "", False, False
    removed, case, least, most = "", None, 0, None
    excluded: list[tuple[str, bool]] = []
    for constraint in constraints:
        match constraint.demand:
            case Forbidden(characters):
                removed += characters
            case Case(wanted):
                if case not in (None, wanted):
                    raise Misfit(constraint, "another rule demands the other case")
                case = wanted
            case Quoted():
                quoted = True
            case Prefix(text, cased):
                if not cased and (
                    form := next((each.demand.case for each in constraints if isinstance(each.demand, Case)), None)
                ):
                    text = text.lower() if form == "lower" else text.upper()
                longer, shorter = sorted((prefix, text), key=len, reverse=True)
                if not longer.startswith(shorter):
                    raise Misfit(constraint, "another rule demands another beginning")
                prefix = longer
            case Counter("lines"):
                single_line = True
            case Excluded(phrases, cased):
                excluded += [(excluding_word(phrase, constraint), cased) for phrase in phrases]
                if len(excluded) > MOST_EXCLUDED:
                    raise Misfit(constraint, "there are too many words to exclude")
            case Counter("characters", fewest, limit):
                if limit is None or limit > MOST_CHARACTERS or limit < 4:
                    raise Misfit(constraint, "that many characters are not counted")
                least, most = max(least, fewest), limit if most is None else min(most, limit)
                if least > most:
                    raise Misfit(constraint, "another rule asks for a different number")
    lexicon = Lexicon(removed="".join(sorted({*removed})), case=case, quoted=quoted)
    if prefix and (not all(map(lexicon.has, prefix)) or (case and prefix != getattr(prefix, case)())):
        source = next(each for each in constraints if isinstance(each.demand, Prefix))
        raise Misfit(source, "it does not fit the other rules")
    given = f'"{prefix}' if quoted and prefix else prefix
    visible, line = lexicon.set_of(PLAIN if excluded else LOOSE), lexicon.set_of(LINE)
    if most is None:
        gap = " {1,8}" if single_line else r"(?: {1,8}|\n{1,3}(?: {1,12})?)"
        body = f"{visible}+(?:{gap}{visible}+)*"
        if given:
            body = f"(?:{gap})?{body}"
    else:
        around = len(given) + (1 if quoted else 0) + (1 if quoted and not given else 0)
        if most - around < 3:
            source = next(each for each in constraints if isinstance(each.demand, Counter))
            raise Misfit(source, "the other rules leave no room for it")
        first = "" if given else visible
        taken = around + (1 if given else 2)
        body = f"{first}{line}{{{max(0, least - taken)},{most - taken}}}{visible}"
    text = f"{'' if given or not quoted else 'QUOTE '}TEXT{' QUOTE' if quoted else ''}"
    without = f" & ~/{exclude_from_text(excluded)}/" if excluded else ""
    grammar = f"start: {text}\nTEXT: /{body}/{without}\n" + ('QUOTE: "\\""\n' if quoted else "")
    if given and not gives_prefix:
        grammar = grammar.replace("start: ", "start: GIVEN ") + f"GIVEN: {quote(given)}\n"
        given = ""
    return Compiled(grammar=grammar, given_prefix=given)


def write_open(plan: Plan) -> str:
    """A grammar of words that counts nothing, for texts of any length."""
    lexicon = plan.lexicon
    terminals = {**lexicon.terminals(), "SPACE": '" "', "QUOTE": '"\\""'}
    gaps = "SPACE"
    if not plan.single_line:
        terminals["NEWLINE"], gaps = lexicon.newline(), "SPACE | NEWLINE"
    opened, closed = ("" if plan.prefix or not lexicon.quoted else "QUOTE "), " QUOTE" if lexicon.quoted else ""
    body = "(gap body)?" if plan.prefix else "body"
    rules = [f"start: {opened}{body}{closed}", "body: (unit gap)* unit", "unit: WORD | STOP", f"gap: {gaps}"]
    return "\n".join([*rules, *(f"{name}: {definition}" for name, definition in terminals.items()), ""])
