"""Writes a grammar in xgrammar's EBNF, for servers that decode with xgrammar.

xgrammar splits no text into tokens of the grammar, so the same rules mean the same there.
"""

import re

_PARTS = re.compile(r'"(?:[^"\\]|\\.)*"|/(?P<regex>(?:[^/\\]|\\.)+)/')
_REGEX_PARTS = re.compile(
    r"(?P<set>\[(?:[^\]\\]|\\.)+\])|(?P<group>\(\?:)|(?P<mark>[)|*?]|\{[\d,]+\})|\\(?P<escaped>.)|(?P<plain>.)"
)
_CODE_POINT = re.compile(r"\\x(?:\{([0-9A-F]+)\}|([0-9A-F]{2}))")


def to_ebnf(grammar: str) -> str:
    """A grammar of ``write_grammar`` or ``write_choices`` in the other notation.

    >>> print(to_ebnf("start: node0 END?\\nnode0: /-?[0-9]{1,3}/\\nEND: \\"!\\"\\n"), end="")
    root ::= start
    start ::= node0 END?
    node0 ::= ("-"? [0-9]{1,3})
    END ::= "!"
    """
    lines = [line.partition(": ") for line in grammar.splitlines()]
    rules = [f"{name} ::= {_PARTS.sub(_part, body)}" for name, _, body in lines]
    return "\n".join(["root ::= start", *rules, ""])


def _part(found: re.Match[str]) -> str:
    if found["regex"] is None:
        return found[0]
    written = "".join(map(_regex_part, _REGEX_PARTS.finditer(found["regex"])))
    return f"({re.sub(r' +(?=[)*?{|])', '', written).strip()})"


def _regex_part(found: re.Match[str]) -> str:
    if found["set"]:
        return _CODE_POINT.sub(lambda code: f"\\U{int(code[1] or code[2], 16):08X}", found["set"]) + " "
    if found["group"]:
        return "("
    if found["mark"]:
        return found["mark"] + " "
    character = found["escaped"] or found["plain"]
    return '"\\"" ' if character == '"' else '"\\\\" ' if character == "\\" else f'"{character}" '
