"""Sets of text rules by chance, as requests have them, and whether texts that are sampled under them follow them."""

from collections.abc import Sequence

from hypothesis import strategies as st

from service.constraints.algebra import Compiled, Constraint, Contradiction
from service.constraints.compile import compile_constraints
from service.constraints.plan import is_one_expression
from service.evaluators.base import Verifier
from service.evaluators.text.bounds import Bounds
from service.evaluators.text.format import Format
from service.evaluators.text.keywords import Keywords, OneOf
from service.evaluators.text.length import Length
from service.evaluators.text.passages import EndsWith, ParagraphStarts, StartsWith
from service.evaluators.text.regex import Regex
from tests.support.masked_walks import Walker

_WORDS = (
    "sea",
    "rain",
    "sugar",
    "Paris",
    "silver",
    "море",
    "New York",
    "art",
    "e.g.",
    "C++",
    "well-known",
    "strasse",
    "it",
    "in conclusion",
    "서울",
    "סלע",
    "light",
)
_BEGINNINGS = (
    "Rain",
    "Dear all",
    "Once upon a time",
    "We",
    "Hello, world.",
    "the lake",
    "Arr",
    "<",
    "1.",
    "Yes!",
    "П",
    "Dr. Who",
)
_ENDS = (
    "The end.",
    "?",
    ".",
    "!",
    "Yours, Boo",
    "What am I?",
    "so be it",
    "Kind regards, Lena",
    "море",
    ":)",
    "End. The end.",
)
_PATTERNS = (
    r"\d",
    "#",
    r"[,;]",
    "a+",
    r"(?i)\bk\b",
    r"(?s)^\s*Q:.*\n+\s*A:",
    r"(?m)^\s*(for|while)\b",
    r"(^|\n)[A-Z]\w+!?$",
    r"(?i)sea[.,;!?]?\s*$",
    r"^[^;]+;[^;]+;[^;]+$",
    r"\W{3}\b",
    r"(?m)^(\S+ ){2,4}\S+$",
)


@st.composite
def bounds(draw: st.DrawFn, largest: int) -> tuple[int | None, int | None]:
    least = draw(st.none() | st.integers(1, largest))
    most = draw(st.none() | st.integers(least or 1, largest * 2))
    return (least, most) if least is not None or most is not None else (1, largest)


@st.composite
def lengths(draw: st.DrawFn) -> Verifier:
    unit = draw(
        st.sampled_from(("words", "words", "words", "sentences", "sentences", "lines", "paragraphs", "characters"))
    )
    least, most = draw(bounds({"words": 40, "characters": 200}.get(unit, 4)))
    separator = draw(st.sampled_from((None, None, "***", "---"))) if unit == "paragraphs" else None
    return Length(unit=unit, min=least, max=most, separator=separator)  # type: ignore[arg-type]


@st.composite
def keywords(draw: st.DrawFn) -> Verifier:
    some = st.lists(st.sampled_from(_WORDS), max_size=3, unique=True).map(tuple)
    include, exclude = draw(some), draw(some)
    counts = draw(
        st.dictionaries(
            st.sampled_from(_WORDS),
            st.sampled_from((Bounds(min=1, max=1), Bounds(min=2, max=2), Bounds(min=2), Bounds(max=1), Bounds(max=0))),
            max_size=1,
        )
    )
    letters = draw(
        st.dictionaries(st.sampled_from("!,?e.b-"), st.sampled_from((Bounds(max=0), Bounds(min=1))), max_size=1)
    )
    if not include and not exclude and not counts and not letters:
        include = ("sea",)
    return Keywords(
        include=include, exclude=exclude, counts=counts, letters=letters, case_sensitive=draw(st.booleans())
    )


@st.composite
def formats(draw: st.DrawFn) -> Verifier:
    plain = (
        "two_responses",
        "title",
        "single_line",
        "no_commas",
        "lowercase",
        "uppercase",
        "quoted",
        "postscript",
        "json",
    )
    counted = ("bullet_list", "numbered_list", "sections", "highlighted", "placeholders", "capital_words")
    kind = draw(st.sampled_from((*plain, *counted)))
    if kind not in counted:
        return Format(kind=kind)  # type: ignore[arg-type]
    least, most = draw(bounds(4))
    marker = {"bullet_list": ("*", "•", None, "->"), "sections": ("SECTION", "Part", None, "第")}.get(kind, (None,))
    return Format(kind=kind, min=least, max=most, marker=draw(st.sampled_from(marker)))  # type: ignore[arg-type]


passages: st.SearchStrategy[Verifier] = st.one_of(
    st.builds(StartsWith, text=st.sampled_from(_BEGINNINGS), case_sensitive=st.booleans()),
    st.builds(EndsWith, text=st.sampled_from(_ENDS), case_sensitive=st.booleans()),
    st.builds(ParagraphStarts, paragraph=st.integers(1, 3), text=st.sampled_from(("Finally", "White", "in the end"))),
)
others: st.SearchStrategy[Verifier] = st.one_of(
    st.builds(OneOf, options=st.just(("18,400", "eighteen")), anywhere=st.booleans()),
    st.builds(Regex, pattern=st.sampled_from(_PATTERNS), must_match=st.booleans()),
)
rule_sets: st.SearchStrategy[Sequence[Verifier]] = st.lists(
    st.one_of(lengths(), keywords(), formats(), passages, others), min_size=1, max_size=4
)

WALKS = 3


def constraints_of(verifiers: Sequence[Verifier]) -> Sequence[Constraint]:
    return [each.of(index) for index, verifier in enumerate(verifiers) for each in verifier.constraints()]


def broken_rules(compiled: Compiled, verifiers: Sequence[Verifier], text: str) -> Sequence[str]:
    """The enforced rules that a text breaks, each with what is wrong."""
    broken = list[str]()
    for index, verifier in enumerate(verifiers):
        enforced = {each.rule for each in compiled.enforced if each.evaluator == index}
        enforced -= {each.constraint.rule for each in compiled.left_out if each.constraint.evaluator == index}
        failed = [check for check in verifier.check(text) if check.score < 1]
        named = [(f"{verifier.type}.{check.rule}", check.message) for check in failed]
        broken += [f"{rule}: {message}" for rule, message in named if rule in enforced]
    return broken


def check_by_walking(walker: Walker, verifiers: Sequence[Verifier], max_tokens: int | None, seed: int) -> str:
    """Compile, walk, and check every text that ends. Returns what came of it, for counting."""
    try:
        compiled = compile_constraints(constraints_of(verifiers), max_tokens=max_tokens)
    except Contradiction:
        return "contradiction"
    if compiled.choices or compiled.schema is not None:
        return "whole"
    if compiled.grammar is None:
        return "nothing"
    ended = 0
    for walk_seed in range(seed, seed + WALKS):
        walk = walker.walk(compiled.grammar, walk_seed, ending=0.3 if walk_seed % 2 else 0.02)
        text = compiled.given_prefix + walk.text
        if walk.error and not walk.text and is_one_expression(compiled.enforced):
            return "refused"  # no text matches all the patterns, which shows when the grammar is proven
        assert not walk.error, (walk.error[:500], text)
        if walk.ended:
            ended += 1
            assert text.strip(), "an empty text"
            broken = broken_rules(compiled, verifiers, text)
            assert not broken, (broken, text)
    return "ended" if ended else "cut"
