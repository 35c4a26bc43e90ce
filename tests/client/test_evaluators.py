"""What packages with evaluators may rely on. A change here breaks somebody's package: see the module's promise."""

import inspect
import subprocess
import sys
from dataclasses import fields

import pytest

from redraft import evaluators

VALUES = {
    "Choice": ["logprobs", "usage"],
    "Choose": ["conversation", "options", "prefill"],
    "Completion": ["text", "finish_reason", "usage", "token_ids", "thoughts", "breaks_grammar"],
    "Likelihood": ["tokens", "usage"],
    "Sample": ["conversation", "sampling", "schema", "grammar", "given"],
    "Weigh": ["conversation", "reply"],
    "WeighedToken": ["text", "logprob", "rival", "rival_logprob"],
    "Check": ["rule", "score", "message", "instruction", "translations"],
    "CriterionScore": ["name", "score", "stderr", "mass"],
    "Evaluation": [
        *("evaluator", "authority", "hard", "weight", "passed", "score"),
        *("issues", "criteria", "stderr", "error"),
    ],
    "Issue": ["rule", "message", "instruction"],
    "SandboxLimits": ["seconds", "memory_mib", "processes", "disk_mib", "open_files", "output_bytes", "report_bytes"],
    "Submission": [
        "text",
        "request",
        "shown",
        "judge_prompt",
        "engine",
        "thread",
        "language",
        "evaluators",
        "reversed_question",
        "departure",
    ],
    "Verifier": ["hard", "weight"],
}
OTHERS = [
    *("Authority", "Conversation", "Engine", "EvaluationFailed", "Evaluator"),
    *("EvaluatorSpec", "RefusedField", "Sampling", "Sandbox", "Toolbox"),
]


def test_the_public_names_are_these() -> None:
    assert evaluators.__all__ == sorted([*VALUES, *OTHERS])
    assert [name for name in evaluators.__all__ if not hasattr(evaluators, name)] == []


@pytest.mark.parametrize("name", VALUES)
def test_the_fields_of_values_are_these(name: str) -> None:
    assert [field.name for field in fields(getattr(evaluators, name))] == VALUES[name]


def test_every_class_says_what_it_is() -> None:
    classes = [kind for name in evaluators.__all__ if inspect.isclass(kind := getattr(evaluators, name))]

    assert [kind.__name__ for kind in classes if not inspect.getdoc(kind)] == []


def test_without_the_server_s_packages_the_import_says_what_to_install() -> None:
    program = "import sys; sys.modules['re2'] = None; import redraft.evaluators"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert done.stderr.endswith("ImportError: redraft.evaluators needs re2: pip install 'redraft[server]'\n")
