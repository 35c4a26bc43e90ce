"""A task's prompts. They are data, Jinja templates from a task file; none of them is in code.

Values are inserted and never rendered, so a candidate that contains ``{{ … }}`` stays what it is. A template runs in
Jinja's sandbox and is bounded: it reaches no other file, loops are at most two deep, ``range`` gives at most 1,000
numbers, and ``*`` repeats no text.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

VARIABLES: Mapping[str, frozenset[str]] = {
    "draft": frozenset({"prompt", "parameters", "choices"}),
    "show": frozenset({"candidate", "fence"}),
    "show_another": frozenset({"candidate", "fence"}),
    "say_again": frozenset(),
    "rate": frozenset({"question"}),
    "rate_reversed": frozenset({"question"}),
    "rate_prefill": frozenset(),
    "doubt": frozenset({"issues", "principles", "verifications"}),
    "doubt_prefill": frozenset(),
    "critique": frozenset({"issues", "principles", "verifications", "criteria", "departures"}),
    "departure": frozenset({"passage", "expected"}),
    "questions": frozenset(),
    "answer": frozenset({"question"}),
    "edit": frozenset({"instructions", "remarks", "memory"}),
    "redraft": frozenset({"instructions", "remarks", "memory"}),
    "shorten": frozenset({"language"}),
    "vote": frozenset({"candidates", "fence"}),
    "vote_prefill": frozenset(),
    "compare": frozenset({"candidates", "fence"}),
    "compare_prefill": frozenset(),
    "choose_tool": frozenset({"tools"}),
    "call_tool": frozenset({"tool"}),
}
"""Every template that a task has, and the variables it may use.

- draft: what the model is asked first
- show: a candidate, between two lines of the fence; show_another: the same, after the model's own answer; say_again:
  asks for that answer in other words
- rate: a criterion's question about the candidate shown; rate_reversed: the same, with the answers in the other order;
  rate_prefill: how the answer to both begins, before Yes or No
- doubt: whether the candidate shown is right; ``verifications`` maps questions to answers; doubt_prefill: how the
  answer begins, before Yes or No
- critique: what is wrong with the candidate shown; ``criteria`` maps numbers to names, and ``departures`` have a
  ``passage`` of the candidate and how the model ``expected`` its last word
- departure: the remark on a large departure
- questions: what to ask in order to check the candidate shown; answer: one of these questions, asked without it
- edit: what a better version of the reply before it must do
- redraft: what a new answer must do, put after the request
- shorten: the instruction that both get if a reply has no other fault than that it was cut; ``language`` is "zh" for a
  Chinese request, else "en"
- vote: which of the lettered candidates agrees most with the others; compare: which of two is better; vote_prefill and
  compare_prefill: how the answer begins, before the letter
- choose_tool: which of the functions to call; call_tool: the arguments of one. Each function has ``name``,
  ``description`` and ``parameters``, its arguments' JSON schema as a text.

Lists are tuples of sentences.
"""

_TOOL: Mapping[str, str] = {"name": "text", "description": "text", "parameters": "{}"}
_NOTHING: Mapping[str, object] = dict.fromkeys(("instructions", "remarks", "memory", "issues", "principles"), ())
_TEXTS: Mapping[str, object] = dict.fromkeys(
    ("question", "candidate", "fence", "prompt", "passage", "expected"), "text"
)
SAMPLES: Sequence[Mapping[str, object]] = (
    {
        **_TEXTS,
        **_NOTHING,
        "candidates": {"A": "text"},
        "verifications": {},
        "criteria": {},
        "departures": (),
        "choices": (),
        "tools": (),
        "tool": {**_TOOL, "description": ""},
        "language": "en",
    },
    {
        **_TEXTS,
        **dict.fromkeys(_NOTHING, ("A sentence.",)),
        "candidates": {"A": "text"},
        "verifications": {"A question?": "An answer."},
        "criteria": {"1": "accuracy"},
        "departures": ({"passage": "a text", "expected": "word"},),
        "choices": ("text", "another"),
        "tools": (_TOOL,),
        "tool": _TOOL,
        "language": "zh",
    },
)
"""Values that every template must be able to render, besides the parameters of its task."""
MAX_RANGE = 1_000
MAX_LOOPS = 2


class PromptError(ValueError):
    """A template that is missing, does not compile or uses a variable that it does not have."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not all(isinstance(side, int | float) for side in (left, right)):
            raise SecurityError(f"{operator!r} is for products and remainders of numbers only")
        return super().call_binop(context, operator, left, right)


def _numbers(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > MAX_RANGE:
        raise SecurityError(f"a range has at most {MAX_RANGE} numbers")
    return numbers


@dataclass(frozen=True)
class Prompts:
    """A task's compiled templates, by the names in VARIABLES. Make them with ``compile``.

    ``parameters``: the task's parameters that the templates name.
    """

    templates: Mapping[str, Template]
    parameters: frozenset[str]

    @classmethod
    def compile(cls, sources: Mapping[str, str], declared: Collection[str] | None = None) -> "Prompts":
        """``declared``: the parameters that the task has; None for any. Raises PromptError."""
        if wrong := VARIABLES.keys() ^ sources.keys():
            raise PromptError(f"templates missing or unknown: {', '.join(sorted(wrong))}")
        compiled = {name: _compile(name, source) for name, source in sources.items()}
        prompts = cls(
            templates={name: template for name, (template, _) in compiled.items()},
            parameters=frozenset().union(*(parameters for _, parameters in compiled.values())),
        )
        if declared is not None and (undeclared := prompts.parameters - set(declared)):
            raise PromptError(f"the templates use undeclared parameters: {', '.join(sorted(undeclared))}")
        given = defaultdict(lambda: "text") if declared is None else dict.fromkeys(declared, "text")
        for name in VARIABLES:
            prompts.try_out(name, given)
        return prompts

    def try_out(self, name: str, parameters: Mapping[str, str]) -> None:
        """Raise PromptError if the template cannot render the samples of its variables."""
        for sample in SAMPLES:
            values = {**sample, "parameters": parameters}
            try:
                self.render(name, **{variable: values[variable] for variable in VARIABLES[name]})
            except Exception as error:  # a template may raise anything
                raise PromptError(f"the template {name!r} cannot be rendered: {error}") from error

    def render(self, name: str, **values: object) -> str:
        return self.templates[name].render(values)


@lru_cache(maxsize=1024)
def _compile(name: str, source: str) -> tuple[Template, frozenset[str]]:
    """A template, and the task's parameters that it names. Tasks share most of their templates, so they are kept."""
    environment = _Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.globals["range"] = _numbers
    try:
        parsed = environment.parse(source)
        if unknown := meta.find_undeclared_variables(parsed) - VARIABLES[name]:
            raise PromptError(f"the template {name!r} uses unknown variables: {', '.join(sorted(unknown))}")
        _refuse_what_is_unbounded(name, parsed)
        return environment.from_string(parsed), frozenset(_parameters(parsed))
    except TemplateError as error:
        raise PromptError(f"a template does not compile: {error}") from error
    except RecursionError as error:
        raise PromptError("a template does not compile: it is nested too deeply") from error


def _parameters(template: nodes.Template) -> Sequence[str]:
    """The task's parameters that a template names: as an attribute, by an index, or by ``get``."""
    found: list[object] = []
    for node in template.find_all((nodes.Getattr, nodes.Getitem, nodes.Call)):
        match node:
            case nodes.Getattr(node=nodes.Name(name="parameters"), attr=str(name)) if name not in (
                "get",
                "items",
                "keys",
            ):
                found.append(name)
            case nodes.Getitem(node=nodes.Name(name="parameters"), arg=nodes.Const(value=name)):
                found.append(name)
            case nodes.Call(
                node=nodes.Getattr(node=nodes.Name(name="parameters"), attr="get"), args=[nodes.Const(value=name), *_]
            ):
                found.append(name)
    return [name for name in found if isinstance(name, str)]


def _refuse_what_is_unbounded(name: str, template: nodes.Template) -> None:
    """Raises PromptError for what reaches other files, and for loops in loops in loops."""
    if next(template.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)), None):
        raise PromptError(f"the template {name!r} reads another: there are no other templates")
    pairs: list[tuple[nodes.Node, int]] = [(template, 0)]
    while pairs:
        node, depth = pairs.pop()
        depth += isinstance(node, nodes.For)
        if depth > MAX_LOOPS or (isinstance(node, nodes.For) and node.recursive):
            raise PromptError(f"the template {name!r} has loops more than {MAX_LOOPS} deep")
        pairs += [(child, depth) for child in node.iter_child_nodes()]
