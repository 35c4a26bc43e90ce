"""A refine program in the terminal, event by event."""

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from redraft import (
    CandidateAdded,
    CandidateEvaluated,
    ConnectionFailed,
    Critiqued,
    CritiqueResult,
    GenerateResult,
    RedraftError,
    RefineEvent,
    RefineResult,
    RoundEnded,
    Started,
)
from redraft.results import Result, Timing, Usage

DIFF_STYLES = {"equal": "", "insert": "green", "delete": "red strike"}


def show(console: Console, event: RefineEvent) -> None:
    """Draw one event; of the result how it came about, but not its text."""
    match event:
        case CandidateAdded():
            origin = f"{event.form} of {event.parent}" if event.parent else event.form
            console.print(Panel(Text(event.text), title=f"round {event.round} · {event.id} · {origin}"))
        case CandidateEvaluated():
            _show_evaluation(console, event)
        case Critiqued():
            console.print(f"  critique of {event.candidate}:", style="yellow")
            for remark in event.issues or ("nothing to change",):
                console.print(f"    - {remark}", style="yellow", markup=False)
        case RoundEnded():
            word = "accepted" if event.accepted else "nothing better"
            console.print(f"  round {event.round}: {word}, the best is {event.incumbent}\n", style="bold")
        case RefineResult():
            _show_result(console, event)


def show_any(console: Console, event: Result) -> None:
    """Draw one event of a job of whatever kind, without the text of its result."""
    match event:
        case Started() | CandidateAdded() | CandidateEvaluated() | Critiqued() | RoundEnded() | RefineResult():
            show(console, event)
        case GenerateResult() | CritiqueResult():
            show_cost(console, event.usage, event.timing)


def show_cost(console: Console, usage: Usage, timing: Timing) -> None:
    console.print(
        f"  {timing.total_seconds:.1f} s · {usage.calls} calls · {usage.prompt_tokens} prompt tokens, "
        f"{usage.cached_tokens} of them cached · {usage.completion_tokens} written",
        style="dim",
    )


def show_failure(console: Console, error: RedraftError) -> None:
    console.print(str(error), style="red", markup=False)
    if isinstance(error, ConnectionFailed) and not error.sent:
        console.print("Is the service running? `make serve` starts it.", style="red")


def _show_evaluation(console: Console, event: CandidateEvaluated) -> None:
    score = "unknown" if event.score is None else f"{event.score:.2f}"
    console.print(f"  {event.candidate} scores {score}", style="cyan")
    for evaluation in event.evaluations:
        for issue in evaluation.issues:
            console.print(f"    {evaluation.evaluator}: {issue.message}", style="red", markup=False)
        for criterion in evaluation.criteria or ():
            abstained = criterion.score is None or criterion.stderr is None
            shown = "abstained" if abstained else f"{criterion.score:.2f} ± {criterion.stderr:.2f}"
            console.print(f"    {criterion.name}: {shown}", style="dim", markup=False)


def _show_result(console: Console, result: RefineResult) -> None:
    candidates = [candidate for ended in result.rounds or () for candidate in ended.candidates]
    changes = next((c.diff for c in candidates if c.id == result.selected.candidate), None)
    if changes:
        console.print("  what changed:", style="bold")
        console.print(Text("    ").append_tokens((change.text, DIFF_STYLES.get(change.op)) for change in changes))
    console.print(f"  stopped by {result.stop_reason}, the best is {result.selected.candidate}", style="bold")
    show_cost(console, result.usage.total, result.timing)
    if result.judge_trust.level != "drive":
        console.print(f"  The trust in the judge is {result.judge_trust.level}.", style="yellow")
    if result.passed is False:
        console.print("  It does not pass: not every hard rule holds.", style="bold yellow")
