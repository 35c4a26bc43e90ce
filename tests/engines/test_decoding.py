"""Grammars are tried out before they are sent, on the limits of the library that decodes with them."""

import pytest

from service.engines.decoding import GrammarRefused, Grammars, begin_with, bytes_as_tokens

EXCLUDED = "start: TEXT\nTEXT: /(?s:.*)/ & ~/(?s:.*)sand(?s:.*)/\n"


@pytest.fixture
def grammars() -> Grammars:
    return Grammars(bytes_as_tokens)


@pytest.mark.parametrize(
    "grammar",
    [
        'start: "yes" | "no"\n',
        EXCLUDED,
        "start: (WORD WS){0,300} LAST\nWORD: /\\S{1,40}/\nWS: /\\s{1,2}/\nLAST: /\\S{1,40}[.!?]/\n",
        begin_with("Once upon a time", None),
    ],
)
async def test_a_grammar_that_works_is_proven(grammars: Grammars, grammar: str) -> None:
    await grammars.prove(grammar)
    await grammars.prove(grammar)


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("start: TEXT\nTEXT: /[a-z]+/ & /[A-Z]+/\n", "NoExtension"),
        ("start: TEXT\nTEXT: /a(?=b)/\n", "invalid regex"),
        ("start: word\n", "unknown name"),
        ("", "Empty grammar"),
    ],
)
async def test_a_grammar_that_would_end_a_text_at_once_is_refused(
    grammars: Grammars, grammar: str, reason: str
) -> None:
    for _ in range(2):
        with pytest.raises(GrammarRefused, match=reason):
            await grammars.prove(grammar)


async def test_a_text_is_held_against_its_grammar(grammars: Grammars) -> None:
    greeting = 'start: "Dear " NAME "!"\nNAME: /[a-z]+/\n'

    async def breaks(grammar: str, reply: str | list[int], *, ended: bool) -> bool:
        fresh = Grammars(bytes_as_tokens)
        await fresh.prove(grammar)
        return fresh.breaks(grammar, reply, ended=ended)

    assert not await breaks(greeting, "Dear ada!", ended=True)
    assert not await breaks(greeting, list(b"Dear ad"), ended=False)
    assert await breaks(greeting, "Dear ad", ended=True)
    assert await breaks(greeting, "", ended=True)
    assert await breaks(greeting, "Hello", ended=False)
    assert await breaks(EXCLUDED, "dunes of sand", ended=True)


async def test_a_grammar_at_which_the_decoder_failed_is_refused_from_then_on(grammars: Grammars) -> None:
    await grammars.prove(EXCLUDED)

    assert grammars.breaks(EXCLUDED, "dunes of sand", ended=True)
    with pytest.raises(GrammarRefused, match="the decoder failed at it"):
        await grammars.prove(EXCLUDED)
    assert grammars.breaks(EXCLUDED, "dunes", ended=True)


@pytest.mark.parametrize(
    ("grammar", "given", "text", "fits"),
    [
        ("start: NAME\nNAME: /[a-z]+/\n", 'Dear "A"\n', 'Dear "A"\nada', True),
        ("start: NAME\nNAME: /[a-z]+/\n", 'Dear "A"\n', "ada", False),
        (None, "A: ", "A: anything\n at all, \u597d", True),
    ],
)
async def test_a_grammar_can_be_made_to_begin_with_a_text(
    grammars: Grammars, grammar: str | None, given: str, text: str, fits: bool
) -> None:
    begun = begin_with(given, grammar)
    await grammars.prove(begun)

    assert grammars.breaks(begun, text, ended=True) is not fits


async def test_grammars_that_have_not_been_used_for_long_are_forgotten(grammars: Grammars) -> None:
    for number in range(200):
        await grammars.prove(f'start: "{number}"\n')

    assert not grammars.breaks('start: "0"\n', "1", ended=True)
    assert grammars.breaks('start: "199"\n', "1", ended=True)
    await grammars.prove('start: "0"\n')
    assert grammars.breaks('start: "0"\n', "1", ended=True)
