"""The interface for evaluators from other packages (docs/guide/evaluators.md).

A package imports from here and never from ``service``, whose modules may change with every release. The names in
``__all__``, their parameters and their fields stay until the next major version. Before 1.0 a change is announced in
the changelog of the minor version before it.

A verifier subclasses Verifier and returns one Check for each of its requirements:

    @dataclass(frozen=True, kw_only=True)
    class NoShouting(Verifier):
        type: Literal["no_shouting"] = "no_shouting"

        def check(self, text: str) -> Sequence[Check]:
            calm = not text.isupper()
            return [Check("case", 1.0 if calm else 0.0, "the text is in capitals", "Do not write in capitals.")]

Anything else implements Evaluator. It scores a Submission and returns an Evaluation with its Issues; a judge adds a
CriterionScore for each criterion, and may call the submission's Engine: ``await engine.call(Sample(...))`` returns a
Completion, ``Choose`` a Choice and ``Weigh`` a Likelihood. A class that needs one of the operator's tools
implements EvaluatorSpec and finds the tool in the Toolbox by its type, such as Sandbox. RefusedField rejects a
setting, EvaluationFailed says that a result could not be had.

Evaluators run inside the service, so this module needs the extra ``server``. The client does not import it.
"""

try:
    from service.engines.base import (
        Choice,
        Choose,
        Completion,
        Engine,
        Likelihood,
        Sample,
        Sampling,
        Weigh,
        WeighedToken,
    )
    from service.engines.conversation import Conversation
    from service.evaluators.base import (
        Authority,
        Check,
        CriterionScore,
        Evaluation,
        EvaluationFailed,
        Evaluator,
        EvaluatorSpec,
        Issue,
        RefusedField,
        Submission,
        Verifier,
    )
    from service.evaluators.code.sandbox import Sandbox, SandboxLimits
    from service.evaluators.toolbox import Toolbox
except ModuleNotFoundError as error:
    raise ImportError(f"redraft.evaluators needs {error.name}: pip install 'redraft[server]'") from error

__all__ = [
    "Authority",
    "Check",
    "Choice",
    "Choose",
    "Completion",
    "Conversation",
    "CriterionScore",
    "Engine",
    "Evaluation",
    "EvaluationFailed",
    "Evaluator",
    "EvaluatorSpec",
    "Issue",
    "Likelihood",
    "RefusedField",
    "Sample",
    "Sampling",
    "Sandbox",
    "SandboxLimits",
    "Submission",
    "Toolbox",
    "Verifier",
    "Weigh",
    "WeighedToken",
]
