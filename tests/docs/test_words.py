"""What a person reads is plain English: these words and phrases have a better replacement, named with each."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

COVERED = (
    "*.md",
    "docs/*.md",
    "docs/design/**/*.md",
    "docs/guide/*.md",
    "docs/operate/*.md",
    "docs/reference/*.md",
    "docs/results/*.md",
    "redraft/**/*.py",
    "service/**/*.py",
)
"""Markdown pages, and Python files whose messages are checked."""

REPLACEMENTS = {
    "beside": "next to, with, in addition to",
    "stands": "is, applies, comes",
    "(is|are|was|were|be|been) told": "receives, is given, is included; or say who tells",
    "told (apart|again)": "distinguished, separated, repeated",
    "tell(s|ing)? apart": "distinguish, separate",
    "(is|are|was|were) none": "is not one, does not",
    "(is|are|was|were) no": "is not a",
    "that there is not": "unknown, missing",
    "anew": "again",
    "whoever": "the client, the person who",
    "at no time": "never",
    "(of )?one's own": "your own, custom",
    "of (yours|theirs)": "your, their",
    "so many": "that many, this number of",
    "may be had": "is available",
    "lest": "so that … not",
    "heeds?": "follow, respect",
    "hitherto|heretofore|thereof|wherein|whereof|thence|whence": "leave it out",
    "mend(s|ed|ing)?": "fix",
    "from day two on": "in production",
    "does it pay": "is it worth it",
    "by real tools": "with the real tools",
    "wants keys": "requires keys",
}
"""Patterns of phrases, and what to write instead."""

ALLOWED = (
    "(is|are) no (longer|more than|less than|larger than|better than|worse than)",
    "stands for",
    "there (is|are|was|were) (no|none)",
)
"""Phrases that are idiomatic although one of the patterns above matches them."""

LEAST_WORDS = 3
"""Shorter string literals in code are names and keys, not messages."""

Finding = tuple[int, str, str]
"""The line, the phrase and its replacement."""


def pattern(phrase: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{phrase})\b".replace(" ", r"\s+"), re.IGNORECASE)


def findings(text: str) -> list[Finding]:
    """The phrases in a text that have a replacement."""
    for phrase in ALLOWED:
        text = blank(pattern(phrase), text)
    return [
        (text.count("\n", 0, match.start()) + 1, match[0], replacement)
        for phrase, replacement in REPLACEMENTS.items()
        for match in pattern(phrase).finditer(text)
    ]


def blank(what: re.Pattern[str], text: str) -> str:
    """The text with blanks for every match, its lines where they were."""
    return what.sub(lambda match: re.sub(r"\S", " ", match[0]), text)


def prose(markdown: str) -> str:
    """A page without its code and the targets of its links."""
    for code in (r"^```.*?^```$", r"`[^`\n]*`", r"\]\([^)]*\)"):
        markdown = blank(re.compile(code, re.MULTILINE | re.DOTALL), markdown)
    return markdown


def messages(source: str) -> list[tuple[int, str]]:
    """The string literals that people read, with their lines: all but docstrings and those of a word or two."""
    tree = ast.parse(source)
    parts = {id(part) for node in ast.walk(tree) for part in passed_over(node)}
    found = [
        (node.lineno, literal(node)) for node in ast.walk(tree) if isinstance(node, ast.expr) and id(node) not in parts
    ]
    return sorted((line, text) for line, text in found if len(text.split()) >= LEAST_WORDS)


def passed_over(node: ast.AST) -> list[ast.expr]:
    """Expressions below a node that are not literals of their own: docstrings, and the pieces of an f-string."""
    match node:
        case ast.Expr(value=docstring):
            return [docstring]
        case ast.JoinedStr(values=pieces):
            return pieces
        case _:
            return []


def literal(node: ast.expr) -> str:
    """The text of a string literal, with braces for what an f-string inserts; empty for other expressions."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=pieces):
            return "".join(literal(piece) or "{}" for piece in pieces)
        case _:
            return ""


def findings_in(path: Path) -> list[Finding]:
    text = path.read_text()
    if path.suffix == ".md":
        return findings(prose(text))
    return [
        (line, phrase, replacement) for line, message in messages(text) for _, phrase, replacement in findings(message)
    ]


FILES = sorted(path for covered in COVERED for path in ROOT.glob(covered))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_sentence_is_plain(path: Path) -> None:
    assert findings_in(path) == []


@pytest.mark.parametrize("covered", COVERED)
def test_every_covered_pattern_has_files(covered: str) -> None:
    assert list(ROOT.glob(covered))


@pytest.mark.parametrize(
    ("sentence", "phrase"),
    [
        ("The figure stands beside the table.", "beside"),
        ("The model is\ntold the rule.", "is\ntold"),
        ("`type` is no setting.", "is no"),
        ("Evaluators of one's own", "of one's own"),
        ("Whoever asks is served.", "Whoever"),
        ("Nothing is downloaded, at no time.", "at no time"),
    ],
)
def test_a_phrase_with_a_replacement_is_found(sentence: str, phrase: str) -> None:
    assert phrase in [found for _, found, _ in findings(prose(sentence))]


@pytest.mark.parametrize(
    "sentence",
    [
        "There is no limit, and there are none for batches.",
        "The field is no longer read.",
        "KV stands for key and value.",
        "Besides, `beside` is only quoted.",
        "```\nwhoever\n```",
        "[notes](beside.md)",
    ],
)
def test_an_idiomatic_sentence_passes(sentence: str) -> None:
    assert findings(prose(sentence)) == []


def test_a_finding_names_its_line() -> None:
    assert [line for line, _, _ in findings(prose("```\ncode\n```\nIt begins anew."))] == [4]


def test_messages_are_the_literals_of_three_words_or_more() -> None:
    source = '''
"""A docstring of a module."""
limit = 3
"""A docstring of a value."""
raise ValueError(f"{limit} is no JSON object", "two words")
help = "the model " "that criticises"
'''
    assert list(messages(source)) == [(5, "{} is no JSON object"), (6, "the model that criticises")]
