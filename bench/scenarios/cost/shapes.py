"""Requests that are meant to be expensive: kinds of evaluators, of texts and of bodies, and how to change one.

Everything stays within the limits that docs/reference/api.md states, or is refused.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

from service.evaluators.text.format import Kind
from service.evaluators.text.length import Unit

BODY_BYTES = (1 << 20) - 1_000
BATCH_BYTES = (1 << 24) - 1_000
MOST_EVALUATORS = 32
SIZES = (1_900, 4_000, 20_000, 99_000, 300_000, BODY_BYTES)

PIECES: Sequence[str] = (
    *(
        "a",
        "a ",
        "aB",
        "1",
        "1,",
        "1.",
        ".5",
        "½",
        "-",
        "x_2 ",
        "3 ",
        "3k ",
        "三",
        "三个",
        "五万",
        "字",
        "字。",
        "。",
        "“字。”",
    ),
    *("\n", " \n", "\n\n", "\r\n", "\u2028", "\u3000", "\u200b", "- a\n", "1. a\n", "1、字\n", "---\n", "# a\n"),
    *(
        "```\n",
        "```python\na=1\n```\n",
        "~~~",
        "`a`",
        "*a*",
        "**",
        "[a]",
        "<<a>>",
        "P.S. a\n",
        "******",
        '"',
        "«a» ",
        "(",
        "[[",
    ),
    *(
        "a. ",
        "A. ",
        "Dr. ",
        "z. B. ",
        "e.g. ",
        "?!",
        "...",
        "…",
        "a.b.",
        "é",
        "e\u0301",
        "\u0301",
        "\u0f73",
        "ß",
        "İ",
        "ﷺ",
    ),
    *(
        "ไทย",
        "မြန်",
        "ខ្មែរ",
        "서울에",
        "كِتَاب",
        "کتاب\u200cها",
        "हिन्दी। ",
        "שלום־",
        "😀",
        "👩\u200d👩\u200d👧",
        "\U00020000",
    ),
    *("http://a.b/c ", "a@b.c ", "ABC ", "{", "[", "0,", '{"a":1},', "null,", "\\", "\u0000", "\ufeff"),
)
PATTERNS: Sequence[str] = (
    "(?:a?){1000}" * 9 + "Z",
    r"(?:\pL?){50}N",
    "(a|b)*c.{50}d",
    "^(a+)+$",
    r"(?i)\b\w{1,20}\b$",
    "x{1000}",
)
SCHEMAS: Sequence[Mapping[str, Any]] = (
    {},
    {"pattern": "(?:a?){300}Z"},
    {"patternProperties": {rf"(?:\pL?){{20}}{index}": {} for index in range(90)}},
    {"uniqueItems": True},
    {"items": {"anyOf": [{"const": index} for index in range(300)]}},
    {"allOf": [{"items": {"type": "string", "minLength": index}} for index in range(300)]},
    {"$defs": {"n": {"anyOf": [{"items": {"$ref": "#/$defs/n"}}, {"type": "integer"}]}}, "$ref": "#/$defs/n"},
    {"items": {"multipleOf": 0.01}},
    {"items": {"enum": [[index] * 20 for index in range(100)]}},
    {"unevaluatedProperties": False, "anyOf": [{"properties": {str(index): {}}} for index in range(200)]},
)


@dataclass(frozen=True)
class Attack:
    """A request, and what it is made of, so that it can be changed.

    ``make`` gives the body for a piece of text, about how long the text is, and how many members there are.
    """

    name: str
    path: str
    make: Callable[[str, int, int], bytes]
    piece: str
    size: int
    count: int
    content_type: str = "application/json"

    @property
    def body(self) -> bytes:
        return self.make(self.piece, self.size, self.count)

    def changed(self, draws: random.Random) -> "Attack":
        """The same with another text, length or number of members."""
        match draws.randrange(3):
            case 0:
                return self.named(piece=draws.choice(PIECES))
            case 1:
                return self.named(size=draws.choice(SIZES))
            case _:
                return self.named(count=max(1, int(self.count * draws.choice((0.25, 0.5, 0.8, 1.25, 2, 4)))))

    def named(self, **changes: Any) -> "Attack":
        changed = replace(self, **changes)
        label = changed.name.partition(" | ")[0]
        return replace(changed, name=f"{label} | {changed.count} times {changed.piece!r} to {changed.size:,}")


def _text(piece: str, size: int) -> str:
    """The piece repeated to about ``size`` bytes of JSON."""
    each = len(json.dumps(piece, ensure_ascii=False).encode()) - 2
    return piece * max(1, size // each)


def _dumped(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _critique(
    evaluator: Mapping[str, Any], text: Callable[[str, int], str], piece: str, size: int, count: int
) -> bytes:
    evaluators = [evaluator] * min(count, MOST_EVALUATORS)
    body = {"prompt": "x", "candidate": "", "judge": False, "feedback": False, "evaluators": evaluators}
    room = BODY_BYTES - len(_dumped(body))
    return _dumped({**body, "candidate": text(piece, min(size, room))})


def _keywords(kind: str, piece: str, size: int, count: int) -> bytes:
    words = [f"{piece.strip() or 'a'}{index} "[:200] for index in range(100)]
    value: Any = {word: {"min": 1} for word in words} if kind == "counts" else words
    return _critique({"type": "keywords", kind: value}, _text, piece, size, count)


def _json_text(piece: str, size: int) -> str:
    return "[" + piece * max(1, size // len(piece.encode()) - 1) + "0]"


def _json_strings(piece: str, size: int) -> str:
    return json.dumps([_text(piece, size)], ensure_ascii=False)


def _json_object(piece: str, size: int) -> str:
    return json.dumps(
        {f"{piece}{index}": index for index in range(size // (len(piece.encode()) + 20))}, ensure_ascii=False
    )


def _members(before: str, member: str, after: str, limit: int, piece: str, size: int, count: int) -> bytes:
    """A list or an object with as many members as fit."""
    members = (member.replace("#", str(index)) for index in range(10**9))
    parts, room = [], min(size * (limit // BODY_BYTES), limit) - len(before) - len(after)
    for part in members:
        room -= len(part) + 1
        if room < 0:
            break
        parts.append(part)
    return f"{before}{','.join(parts)}{after}".encode()


def _batch(line: Callable[[str, int, int], bytes], piece: str, size: int, count: int) -> bytes:
    lines, room = [], BATCH_BYTES
    body = line(piece, min(size, 16_000), min(count, MOST_EVALUATORS)).decode()
    for index in range(1_000):
        text = f'{{"custom_id":"{index}","url":"/v1/critique","body":{body}}}'
        room -= len(text.encode()) + 1
        if room < 0:
            break
        lines.append(text)
    return f'{{"requests":[{",".join(lines)}]}}'.encode()


def _refine(piece: str, size: int, count: int) -> bytes:
    body = {
        "prompt": "x",
        "judge": False,
        "search": {"rounds": 0},
        "evaluators": [{"type": "length", "unit": "words", "max": 9}],
    }
    return _dumped({**body, "draft": _text(piece, min(size, BODY_BYTES // 2)), "messages": None})


RULES: Sequence[Mapping[str, Any]] = (
    *({"type": "length", "unit": unit, "max": 5} for unit in get_args(Unit)),
    *({"type": "format", "kind": kind} for kind in get_args(Kind)),
    {"type": "keywords", "letters": {chr(97 + index): {"max": 1} for index in range(26)}},
    {"type": "one_of", "options": [f"option {index}" for index in range(50)], "anywhere": True},
    {"type": "one_of", "options": [f"option {index}" for index in range(50)]},
    {"type": "number", "value": 1},
    {"type": "number", "value": 1, "tolerance": 1e300, "locale": "fr"},
    {"type": "language", "code": "de"},
    {"type": "starts_with", "text": "a" * 19_000, "case_sensitive": False},
    {"type": "ends_with", "text": "字" * 6_000, "case_sensitive": False},
    {"type": "paragraph_starts", "paragraph": 1_000, "text": "a"},
    {"type": "code_tests", "tests": "assert True", "timeout_seconds": 0.2},
    *({"type": "regex", "pattern": pattern, "must_match": False} for pattern in PATTERNS),
)
BATCHED: Sequence[Mapping[str, Any]] = (
    RULES[1],
    RULES[2],
    {"type": "regex", "pattern": PATTERNS[1]},
    {"type": "language", "code": "de"},
)
WRONG: Sequence[tuple[str, str, str, str]] = (
    ("/v1/refine", '{"prompt":"x","evaluators":[', "0", "]}"),
    ("/v1/refine", '{"prompt":"x","evaluators":[', '{"type":"length","unit":"words"}', "]}"),
    ("/v1/refine", '{"messages":[', "0", "]}"),
    ("/v1/refine", '{"messages":[', '{"role":"user","content":[0,0]}', "]}"),
    ("/v1/refine", '{"prompt":"x","criteria":[', "{}", "]}"),
    ("/v1/refine", '{"prompt":"x","parameters":{', '"#":1', "}}"),
    ("/v1/refine", '{"prompt":"x",', '"#":1', "}"),
    ("/v1/refine", '{"prompt":"x","evaluators":[{"type":"keywords","counts":{', '"#":1', "}}]}"),
    ("/v1/generate", '{"prompt":[', "0", "]}"),
    ("/v1/generate", '{"prompt":"x","response_schema":{"enum":[', '"#"', "]}}"),
    ("/v1/generate", '{"prompt":"x","response_schema":{"properties":{', '"#":{}', "}}}"),
    ("/v1/chat/completions", '{"model":"scripted","messages":[', "0", "]}"),
    ("/v1/chat/completions", '{"model":"scripted","messages":[{"role":"user","content":"x"}],"tools":[', "0", "]}"),
    ("/v1/chat/completions", '{"model":"scripted","messages":[{"role":"user","content":"x"}],', '"#":1', "}"),
    ("/v1/critique", "", "[", ""),
    ("/v1/batch", '{"requests":[', "0", "]}"),
    ("/v1/batch", '{"requests":[', "{}", "]}"),
    ("/v1/batch", '{"requests":[', '{"custom_id":"#","url":"/v1/refine","body":{"prompt":1}}', "]}"),
)


def _shapes() -> list[Callable[[random.Random], Attack]]:
    def shape(
        name: str, path: str, make: Callable[[str, int, int], bytes], size: int
    ) -> Callable[[random.Random], Attack]:
        def begin(draws: random.Random) -> Attack:
            return Attack(name, path, make, draws.choice(PIECES), size, MOST_EVALUATORS).named()

        return begin

    shapes = [
        shape(f"critique {_label(rule)}", "/v1/critique", partial(_critique, rule, _text), size)
        for rule in RULES
        for size in (4_000, BODY_BYTES)
    ]
    shapes += [
        shape(f"keywords {kind}", "/v1/critique", partial(_keywords, kind), BODY_BYTES)
        for kind in ("include", "counts")
    ]
    for index, schema in enumerate(SCHEMAS):
        for text in (_json_text, _json_strings, _json_object):
            rule: Mapping[str, Any] = {"type": "json_schema", "schema": schema}
            name = f"schema {index} on {text.__name__.removeprefix('_json_')}"
            shapes.append(shape(name, "/v1/critique", partial(_critique, rule, text), 99_000))
    for batched in BATCHED:
        line = partial(_critique, batched, _text)
        shapes.append(shape(f"batch {_label(batched)}", "/v1/batch", partial(_batch, line), 4_000))
    shapes.append(shape("refine of a draft", "/v1/refine", _refine, BODY_BYTES))
    for path, before, member, after in WRONG:
        limit = BATCH_BYTES if path == "/v1/batch" else BODY_BYTES
        make = partial(_members, before, member, after, limit)
        shapes.append(shape(f"{path} {before}{member}", path, make, BODY_BYTES))
    return shapes


def _label(rule: Mapping[str, Any]) -> str:
    return " ".join(str(value)[:20] for value in rule.values())


SHAPES: Sequence[Callable[[random.Random], Attack]] = _shapes()
