"""What the steps of learning found, as lines for people."""

from service.learning.canary import count_trials
from service.learning.manifest import Manifest
from service.learning.registry import Registry


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
