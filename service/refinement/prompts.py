"""A task's prompts. They are data: Jinja templates from a task file; none stands in code.

Values are inserted and never rendered, so a candidate that contains ``{{ … }}`` stays what it is.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import StrictUndefined, Template, TemplateError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

VARIABLES: Mapping[str, frozenset[str]] = {
    "draft": frozenset({"prompt", "parameters", "choices"}),
    "exhibit": frozenset({"candidate", "fence"}),
    "rate": frozenset({"question"}),
    "rate_lead": frozenset(),
    "critique": frozenset({"issues", "principles", "verifications"}),
    "questions": frozenset(),
    "answer": frozenset({"question"}),
    "edit": frozenset({"instructions", "remarks", "memory"}),
    "redraft": frozenset({"instructions", "remarks", "memory"}),
    "vote": frozenset({"candidates", "fence"}),
    "vote_lead": frozenset(),
    "compare": frozenset({"candidates", "fence"}),
    "compare_lead": frozenset(),
}
"""Every template that a task has, and the variables it may use.

draft: what the model is asked to begin with. exhibit: a candidate shown between two lines of the fence.
rate: a criterion's question about the exhibit, and rate_lead: how its answer begins, before the digit.
critique: what should change in the reply before it. questions: what to ask in order to check that reply, and answer:
one of these questions, asked without the reply; ``verifications`` maps questions to answers. edit: what a better
version of the reply before it must do. redraft: what a fresh answer must do, put after the request. vote: which of the
lettered candidates agrees most with the others, and compare: which of two is better; vote_lead and compare_lead: how
that answer begins, before the letter. Lists are tuples of sentences.
"""


_NOTHING: Mapping[str, object] = dict.fromkeys(("instructions", "remarks", "memory", "issues", "principles"), ())
_TEXTS: Mapping[str, object] = dict.fromkeys(("question", "candidate", "fence", "prompt"), "text")
_ANY_PARAMETER: Mapping[str, str] = defaultdict(lambda: "text")
SAMPLES: Sequence[Mapping[str, object]] = (
    {
        **_TEXTS,
        **_NOTHING,
        "candidates": {"A": "text"},
        "verifications": {},
        "parameters": _ANY_PARAMETER,
        "choices": (),
    },
    {
        **_TEXTS,
        **dict.fromkeys(_NOTHING, ("A sentence.",)),
        "candidates": {"A": "text"},
        "verifications": {"A question?": "An answer."},
        "parameters": _ANY_PARAMETER,
        "choices": ("text", "another"),
    },
)
"""Values that every template must be able to render."""


class PromptError(ValueError):
    """A template that is missing, does not compile or asks for a variable that it does not get."""


@dataclass(frozen=True)
class Prompts:
    """A task's compiled templates, by the names in VARIABLES. Make them with ``compiled``.

    ``parameters``: the task's parameters that the templates name.
    """

    templates: Mapping[str, Template]
    parameters: frozenset[str]

    @classmethod
    def compiled(cls, sources: Mapping[str, str]) -> "Prompts":
        if wrong := VARIABLES.keys() ^ sources.keys():
            raise PromptError(f"templates missing or unknown: {', '.join(sorted(wrong))}")
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
        )
        try:
            parsed = {name: environment.parse(source) for name, source in sources.items()}
            for name, template in parsed.items():
                if unknown := meta.find_undeclared_variables(template) - VARIABLES[name]:
                    raise PromptError(f"the template {name!r} uses unknown variables: {', '.join(sorted(unknown))}")
            prompts = cls(
                templates={name: environment.from_string(template) for name, template in parsed.items()},
                parameters=frozenset(
                    attribute.attr
                    for template in parsed.values()
                    for attribute in template.find_all(nodes.Getattr)
                    if isinstance(attribute.node, nodes.Name) and attribute.node.name == "parameters"
                ),
            )
        except TemplateError as error:
            raise PromptError(f"a template does not compile: {error}") from error
        for name in VARIABLES:
            prompts.try_out(name)
        return prompts

    def try_out(self, name: str) -> None:
        """Raise PromptError if the template cannot render the samples of its variables."""
        for sample in SAMPLES:
            try:
                self.render(name, **{variable: sample[variable] for variable in VARIABLES[name]})
            except TemplateError as error:
                raise PromptError(f"the template {name!r} cannot be rendered: {error}") from error

    def render(self, name: str, **values: object) -> str:
        return self.templates[name].render(values)
