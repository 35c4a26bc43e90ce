"""``python -m service calibrate``: measure a running service's judge on labelled pairs, and keep what was found.

The pairs are judged in batches, behind all other requests. The exit codes are those of ``ask``.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from redraft import BatchResult, CritiqueResult, Redraft, RedraftError
from redraft.requests import BatchLine
from service.calibration.measurement import Measurement, ScoredPair, measure
from service.calibration.pairs import LabelledPair, PairsError, read_pairs
from service.calibration.store import default_path, save
from service.cli import ask, terminal
from service.cli.standard_streams import Output, Unreadable, read_file
from service.refinement.policy import MODEL_JUDGE
from service.refinement.trust import TrustLevel

MOST_LINES = 1_000
"""Of a batch. A pair has two."""
FEW_PAIRS = 50
"""Below this many the interval is too wide to tell much."""

MEANINGS: Mapping[TrustLevel, str] = {
    "drive": "it may drive the loop",
    "break_ties": "it may choose between candidates that the verifiers cannot distinguish",
    "none": "its scores decide nothing",
}


class NotMeasured(Exception):
    """The judge could not be measured. The message is a sentence for the user."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    ask.add_connection(parser)
    parser.add_argument(
        "--pairs",
        type=_pairs,
        required=True,
        metavar="FILE",
        help="JSON lines, each with request, right and wrong, and with task and parameters where they matter",
    )
    parser.add_argument("--judge-model", metavar="NAME", help="the model to measure; by default the service's judge")
    parser.add_argument(
        "--to", type=Path, metavar="FILE", help="where to keep the result; by default in the service's cache folder"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what was found and keep it."""
    console, output = Console(stderr=True), Output()
    try:
        with Redraft(arguments.url, arguments.key) as client:
            found = measure_judge(client, arguments.pairs, arguments.judge_model)
        path = arguments.to or default_path(found.judge)
        save(found, path)
    except RedraftError as error:
        terminal.show_failure(console, error)
        return 1
    except NotMeasured as error:
        console.print(str(error), style="red", markup=False)
        return 1
    except OSError as error:
        console.print(f"{error.filename} cannot be written: {error.strerror}", style="red", markup=False)
        return 1
    output.write("".join(f"{line}\n" for line in describe(found)))
    where = f" with REDRAFT_CALIBRATION={path}" if arguments.to else ""
    console.print(f"Kept in {path}. The service uses it from its next start on{where}.", markup=False)
    return int(output.closed)


def measure_judge(client: Redraft, pairs: Sequence[LabelledPair], judge: str | None) -> Measurement:
    """Have the service's judge score all replies. Raises NotMeasured and RedraftError."""
    answers = list(_judge(client, pairs, judge))
    name = answers[0].models.judge
    digests = {model.id: model.judge_digest for model in client.models()}
    digest = digests.get(name)
    if digest is None:
        raise NotMeasured(f"the service does not say which weights {name} has, so nothing can be kept for it")
    scores = [_score(number, answer) for number, answer in enumerate(answers)]
    scored = [ScoredPair(right, wrong) for right, wrong in zip(scores[::2], scores[1::2], strict=True)]
    return measure(scored, judge=digest, model=name, source="calibrated")


def describe(found: Measurement) -> Iterator[str]:
    """What was found, in lines for people."""
    yield f"judge           {found.model}"
    yield f"ranked rightly  {found.ranked_rightly} of {found.pairs} pairs, {found.share:.0%}"
    yield f"95 % interval   {found.low:.0%} to {found.high:.0%}"
    yield f"mean gap        {'unknown' if found.mean_gap is None else f'{found.mean_gap:.3f}'}"
    if found.abstained:
        yield f"no score        {found.abstained} pairs"
    if found.map is not None:
        means = ", ".join(f"{tenth / 10:.1f}: {1 - found.map.wrong(tenth / 10):.2f}" for tenth in range(1, 11))
        yield f"right, by score {means}"
    silence = "never" if found.silence is None else f"from a score of {found.silence:.3f} on"
    yield f"silence         {silence}"
    yield f"trust           {found.level}: {MEANINGS[found.level]}"
    if found.pairs < FEW_PAIRS:
        yield f"{found.pairs} pairs say little: {FEW_PAIRS} or more make the interval narrow enough to rely on."


def _judge(client: Redraft, pairs: Sequence[LabelledPair], judge: str | None) -> Iterator[CritiqueResult]:
    """The answers for the right and the wrong reply of each pair, in their order."""
    lines = [
        _line(2 * number + place, pair, reply, judge)
        for number, pair in enumerate(pairs)
        for place, reply in enumerate((pair.right, pair.wrong))
    ]
    for start in range(0, len(lines), MOST_LINES):
        chunk = lines[start : start + MOST_LINES]
        with client.batch(chunk) as results:
            found = {result.custom_id: result for result in results}
        for line in chunk:
            yield _answer(found[line["custom_id"]])


def _line(number: int, pair: LabelledPair, reply: str, judge: str | None) -> BatchLine:
    fields = {**pair.asked, "candidate": reply, "feedback": False, "models": {"judge": judge}}
    return {"custom_id": str(number), "url": "/v1/critique", "body": fields}


def _answer(result: BatchResult) -> CritiqueResult:
    if result.error is not None:
        raise NotMeasured(f"pair {_pair_number(int(result.custom_id))}: {result.error}")
    if not isinstance(result.answer, CritiqueResult):
        raise TypeError("a line of critique is answered with a critique")
    return result.answer


def _score(number: int, answer: CritiqueResult) -> float | None:
    [evaluation] = [found for found in answer.evaluations if found.evaluator == MODEL_JUDGE]
    if evaluation.error is not None:
        raise NotMeasured(f"pair {_pair_number(number)}: the judge gave no answer: {evaluation.error}")
    return evaluation.score


def _pair_number(line: int) -> int:
    return line // 2 + 1


def _pairs(path: str) -> Sequence[LabelledPair]:
    try:
        return read_pairs(read_file(path))
    except (Unreadable, PairsError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
