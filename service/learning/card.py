"""The cards of adapters and of merged checkpoints: what they are and what they are good for, in Markdown for people."""

from collections.abc import Iterator

from service.learning.figures import HEADINGS, tabulate
from service.learning.manifest import Manifest, Merged, Verdict


def make_card(manifest: Manifest) -> str:
    """The card that a manifest gives."""
    return "\n".join(_lines(manifest)) + "\n"


def make_merged_card(merged: Merged) -> str:
    """The card of a checkpoint, which ends with that of its adapter."""
    agreement = merged.agreement
    lines = [
        f"# Checkpoint {merged.checkpoint}",
        "",
        f"The base {merged.base} with the adapter {merged.adapter} merged into its weights.",
        "",
        f"- made: {merged.created}",
        f"- checked: over {agreement.tokens:.0f} greedy tokens, it is {agreement.off:.4f} nats from the base with the",
        f"  adapter, and the base without it {agreement.moved:.4f}",
    ]
    if merged.forced:
        lines.append(f"- merged by force: {merged.forced}")
    return "\n".join([*lines, "", *_lines(merged.learned, "##")]) + "\n"


def _lines(manifest: Manifest, heading: str = "#") -> Iterator[str]:
    training = manifest.recipe.training
    yield f"{heading} Adapter {manifest.adapter}"
    yield ""
    yield f"A LoRA adapter of rank {training.rank} for the base {manifest.base}, trained on {manifest.texts} texts that"
    yield f"follow their rules, and {manifest.pairs} pairs of a better and a worse one."
    if manifest.exercises:
        yield f"Then it tried {manifest.exercises} prompts, rewarded by the evaluators."
    yield ""
    yield f"- recipe: {manifest.recipe.name}"
    yield f"- made: {manifest.created}, in {manifest.seconds:.0f} s"
    yield f"- lessons: {manifest.lessons}"
    if manifest.traces:
        yield f"- from stored traces: {len(manifest.traces)}, withdrawn: {len(manifest.withdrawn)}"
    yield f"- with: {', '.join(f'{name} {version}' for name, version in manifest.versions.items()) or 'unknown'}"
    if manifest.tainted:
        yield f"- **do not use it**: {manifest.tainted}"
    if manifest.forced:
        yield "- it was promoted past the gate"
    yield ""
    if not manifest.verdicts:
        yield "It has not sat an exam."
    for verdict in manifest.verdicts:
        yield from _exam(verdict, f"{heading}#")


def _exam(verdict: Verdict, heading: str) -> Iterator[str]:
    yield f"{heading} Exam against {verdict.against or 'the base'}: {verdict.decision}"
    yield ""
    yield from (f"- {reason}" for reason in verdict.reasons)
    yield ""
    yield f"| {' | '.join(HEADINGS)} |"
    yield "| --- | --- | --- | --- | --- |"
    yield from (f"| {' | '.join(row)} |" for row in tabulate(verdict.figures))
    yield ""
