"""What the steps of learning found, as lines for people."""

from collections.abc import Iterator

from service.learning.canary import count_trials
from service.learning.exam import Sat
from service.learning.manifest import Manifest
from service.learning.registry import Registry


def exam_lines(sat: Sat, adapter: str, current: str) -> Iterator[str]:
    """The exam as a table, with the verdict."""
    yield f"{adapter} against {current or 'the base'}, share of texts that follow all rules:"
    yield f"{'kinds of rules':16}{'prompts':>8}{'before':>9}{'after':>9}{'bad before':>12}{'bad after':>11}"
    for name, section in (("trained", sat.results.trained), ("other", sat.results.other)):
        before, after = section.incumbent, section.candidate
        shares = [sum(arm.passed) / len(arm.passed) for arm in (before, after)]
        yield (f"{name:16}{len(before.passed):8}{shares[0]:9.1%}{shares[1]:9.1%}{before.bad:12.1%}{after.bad:11.1%}")
    yield f"verdict: {sat.judgement.decision}"
    yield from (f"  {reason}" for reason in sat.judgement.reasons)


def canary_line(registry: Registry, adapter: str) -> str:
    """What became of an adapter's canary so far; empty if there was none."""
    if (canary := registry.canaries.last(adapter)) is None:
        return ""
    tally = count_trials(registry.canaries.trials(adapter, canary.against))
    state = "runs" if canary.ended is None else canary.verdict
    return f"canary {state}: won {tally.wins['candidate']} and lost {tally.wins['incumbent']} of {tally.trials} trials"


def adapter_line(manifest: Manifest, state: str) -> str:
    verdict = manifest.verdicts[-1].decision if manifest.verdicts else "not examined"
    states = [state] if state else []
    if manifest.withdrawn:
        states.append(f"withdrawn: {len(manifest.withdrawn)} of {len(manifest.traces)} traces")
    shown = f"{manifest.adapter}  {manifest.created}  {manifest.texts:4} texts  {verdict:13}  {', '.join(states)}"
    return shown.rstrip()
