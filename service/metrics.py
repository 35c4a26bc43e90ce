"""All Prometheus metrics. Only events feed them.

Metrics has its own registry. The in-process engine keeps its series in prometheus_client's default registry; ``page``
shows both.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import get_args

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service.engines.base import Usage
from service.errors import Draining, EngineDead, EngineUnavailable, Starting
from service.refinement.candidate import Assessment
from service.refinement.events import (
    CallEnded,
    ConstraintFailed,
    EvaluatorEnded,
    Event,
    FailureCause,
    Refined,
    RepairEnded,
    RoundEnded,
    TextAborted,
)
from service.refinement.roles import CallRole
from service.refinement.trust import JudgeTrust, TrustLevel

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
"""From a rule's check to a refine of ten minutes."""
EVALUATOR_SECONDS = (0.0001, 0.001, *SECONDS)
ROUNDS = (0, 1, 2, 3, 4, 5, 6, 8, 10)
SCORES = tuple(step / 10 for step in range(1, 11))
GAINS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
"""They start at 0, because a text that ranks below the first draft is never returned."""

READY = "ready"
STATES = (READY, *(error.code for error in (Starting, Draining, EngineUnavailable, EngineDead)))
"""The states that the readiness route can report: ready, or the code of the error that programs would get."""

SHED_REASONS = ("overloaded", "draining", "caller_limit", "deadline")
LIVE_JOBS = ("queued", "running")
ATTEMPTS = ("first", "again")
STEPS = ("made", "replayed", "lost")
DELIVERIES = ("delivered", "retried", "gone", "given_up")
TRACE_OUTCOMES = ("stored", "failed", "dropped", "refused")
OUTCOMES = {True: "passed", False: "failed"}
CANARY_WINNERS = ("candidate", "even", "incumbent")
CANARY_VERDICTS = ("better", "worse", "undecided", "broken")
REPEATS = ("replayed", "joined", "still_at_work")


class Metrics:
    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.state = Gauge(
            "redraft_state", "1 for the state of the service, 0 for the others.", ["state"], registry=registry
        )
        self.requests = Counter(
            "redraft_requests",
            "Requests answered, by route and HTTP status.",
            ["endpoint", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "redraft_request_seconds",
            "Time from a request's arrival to the end of its answer.",
            ["endpoint"],
            buckets=SECONDS,
            registry=registry,
        )
        self.first_event_seconds = Histogram(
            "redraft_first_event_seconds",
            "Time from a request's arrival to its first piece of work done: a token streamed or an engine call ended.",
            ["endpoint"],
            buckets=SECONDS,
            registry=registry,
        )
        self.in_progress = Gauge("redraft_requests_in_progress", "Programs at work.", registry=registry)
        self.queued = Gauge("redraft_requests_queued", "Programs waiting for a place.", registry=registry)
        self.shed = Counter(
            "redraft_requests_shed", "Programs refused before any work, by reason.", ["reason"], registry=registry
        )
        for reason in SHED_REASONS:
            self.shed.labels(reason)  # there from the start, or Prometheus would not see the first one as an increase
        self.batch_lines = Counter(
            "redraft_batch_lines", "Lines of batches answered, by status.", ["status"], registry=registry
        )
        self.batch_lines_waiting = Gauge(
            "redraft_batch_lines_waiting", "Lines of batches not yet begun.", registry=registry
        )
        self.repeats = Counter(
            "redraft_requests_repeated",
            "Requests sent again under their idempotency key, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        for outcome in REPEATS:
            self.repeats.labels(outcome)
        self.kept_answers_bytes = Gauge(
            "redraft_kept_answers_bytes", "Bytes of answers kept for requests sent again.", registry=registry
        )
        self.rounds = Histogram(
            "redraft_refine_rounds",
            "Rounds of a refine program after round 0.",
            ["task"],
            buckets=ROUNDS,
            registry=registry,
        )
        self.stops = Counter(
            "redraft_refine_stops", "Refine programs ended, by stop reason.", ["task", "reason"], registry=registry
        )
        self.score = Histogram(
            "redraft_refine_score",
            "Score of the first draft and of the returned text.",
            ["stage"],
            buckets=SCORES,
            registry=registry,
        )
        self.score_gain = Histogram(
            "redraft_refine_score_gain",
            "Score of the returned text less the first draft's, at least 0.",
            ["task"],
            buckets=GAINS,
            registry=registry,
        )
        self.first_drafts = Counter(
            "redraft_first_drafts",
            "First drafts of verified refine programs, by writer and by whether they passed.",
            ["model", "outcome"],
            registry=registry,
        )
        self.verified_texts = Counter(
            "redraft_verified_texts",
            "Texts returned by verified refine programs, by writer and by whether they passed.",
            ["model", "outcome"],
            registry=registry,
        )
        self.verified_tokens = Counter(
            "redraft_verified_tokens", "Tokens of verified refine programs, by writer.", ["model"], registry=registry
        )
        self.learned = Gauge(
            "redraft_learned_model",
            "1 for the weights that answer for the model that learns, 0 for others that did.",
            ["serves"],
            registry=registry,
        )
        self.canary_trials = Gauge(
            "redraft_canary_trials",
            "Trials of the canary that runs, by whose first drafts passed more often.",
            ["winner"],
            registry=registry,
        )
        for winner in CANARY_WINNERS:
            self.canary_trials.labels(winner)
        self.canary_verdicts = Counter(
            "redraft_canary_verdicts",
            "Canaries that this process has ended, by verdict.",
            ["verdict"],
            registry=registry,
        )
        for verdict in CANARY_VERDICTS:
            self.canary_verdicts.labels(verdict)
        self.rounds_without_gain = Counter(
            "redraft_rounds_without_gain", "Rounds that did not change the incumbent.", ["task"], registry=registry
        )
        self.step_seconds = Histogram(
            "redraft_step_seconds",
            "Time of engine calls, by role and model.",
            ["role", "model"],
            buckets=SECONDS,
            registry=registry,
        )
        self.tokens = Counter(
            "redraft_tokens",
            "Tokens of engine calls; cached ones are also counted as prompt tokens, reasoning as completion tokens.",
            ["role", "model", "kind"],
            registry=registry,
        )
        self.evaluator_seconds = Histogram(
            "redraft_evaluator_seconds",
            "Time of an evaluator's work on one candidate.",
            ["evaluator"],
            buckets=EVALUATOR_SECONDS,
            registry=registry,
        )
        self.evaluator_errors = Counter(
            "redraft_evaluator_errors", "Evaluations that failed.", ["evaluator"], registry=registry
        )
        self.constraint_failures = Counter(
            "redraft_constraint_failures",
            "Texts that do not keep to what they were sampled under, by cause.",
            ["cause"],
            registry=registry,
        )
        for cause in get_args(FailureCause):
            self.constraint_failures.labels(cause)
        self.repairs = Counter(
            "redraft_repairs",
            "Rules that code tried to repair in texts, by whether the repaired text was kept.",
            ["rule", "outcome"],
            registry=registry,
        )
        self.aborts = Counter(
            "redraft_aborts",
            "Texts stopped while they were written, by rule and by whether they were kept or lost.",
            ["rule", "outcome"],
            registry=registry,
        )
        self.stored_traces = Counter(
            "redraft_stored_traces",
            "Traces that were to be stored, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        for outcome in TRACE_OUTCOMES:
            self.stored_traces.labels(outcome)
        self.feedback = Counter("redraft_feedback", "Feedback on stored traces, by kind.", ["kind"], registry=registry)
        self.judge_trust = Gauge(
            "redraft_judge_trust",
            "1 for the trust in a model as a judge, 0 for the other levels.",
            ["model", "level"],
            registry=registry,
        )
        self.judge_share = Gauge(
            "redraft_judge_share", "Share of labelled pairs that a judge ranked rightly.", ["model"], registry=registry
        )
        self.jobs = Gauge(
            "redraft_jobs", "Jobs that have not ended, in the whole store, by state.", ["state"], registry=registry
        )
        self.oldest_queued_job = Gauge(
            "redraft_oldest_queued_job_seconds",
            "Time since the oldest job that waits was created; 0 if none waits.",
            registry=registry,
        )
        self.jobs_ended = Counter(
            "redraft_jobs_ended", "Jobs ended by this process.", ["kind", "state"], registry=registry
        )
        self.job_attempts = Counter(
            "redraft_job_attempts",
            "Attempts at jobs that this process began: the first of a job, or a later one.",
            ["attempt"],
            registry=registry,
        )
        for attempt in ATTEMPTS:
            self.job_attempts.labels(attempt)
        self.job_steps = Counter(
            "redraft_job_steps", "Steps of jobs: made, replayed or lost.", ["outcome"], registry=registry
        )
        for outcome in STEPS:
            self.job_steps.labels(outcome)
        self.stored_bytes = Gauge(
            "redraft_stored_bytes", "Bytes that callers keep in the whole store, by room.", ["room"], registry=registry
        )
        self.storage_refusals = Counter(
            "redraft_storage_refusals", "What was not kept, as its caller keeps as much as it may.", registry=registry
        )
        self.deliveries = Counter(
            "redraft_deliveries",
            "Attempts to deliver a notice, by receiver and by what became of them.",
            ["receiver", "result"],
            registry=registry,
        )
        self.deliveries_pending = Gauge(
            "redraft_deliveries_pending", "Notices in the whole store that were not delivered yet.", registry=registry
        )
        self.deliveries_overdue = Gauge(
            "redraft_deliveries_overdue",
            "Notices in the whole store whose next attempt should have been made a minute ago.",
            registry=registry,
        )
        self._calls: dict[tuple[CallRole, str], _CallSeries] = {}
        self._learned = ""

    def watch_admission(self, in_progress: Callable[[], float], queued: Callable[[], float]) -> None:
        """Set the functions from which the gauges of admission read their values."""
        self.in_progress.set_function(in_progress)
        self.queued.set_function(queued)

    def watch_batches(self, waiting: Callable[[], float]) -> None:
        self.batch_lines_waiting.set_function(waiting)

    def watch_kept_answers(self, held_bytes: Callable[[], float]) -> None:
        self.kept_answers_bytes.set_function(held_bytes)

    def count_repeat(self, outcome: str) -> None:
        self.repeats.labels(outcome).inc()

    def count_trace(self, outcome: str) -> None:
        """``outcome``: one of TRACE_OUTCOMES."""
        self.stored_traces.labels(outcome).inc()

    def count_feedback(self, kind: str) -> None:
        self.feedback.labels(kind).inc()

    def show_judge(self, model: str, trust: JudgeTrust) -> None:
        for level in get_args(TrustLevel):
            self.judge_trust.labels(model, level).set(level == trust.level)
        if trust.share is not None:
            self.judge_share.labels(model).set(trust.share)

    def show_learned(self, model: str) -> None:
        """``model``: the name of the weights that answer for the model that learns from now on."""
        if self._learned:
            self.learned.labels(self._learned).set(0)
        self._learned = model
        self.learned.labels(model).set(1)

    def show_canary(self, wins: Mapping[str, int]) -> None:
        """``wins``: how many trials each of CANARY_WINNERS has won so far."""
        for winner in CANARY_WINNERS:
            self.canary_trials.labels(winner).set(wins[winner])

    def count_canary(self, verdict: str) -> None:
        """Count a canary that has ended. ``verdict``: one of CANARY_VERDICTS."""
        self.canary_verdicts.labels(verdict).inc()

    def show_jobs(self, queued: int, running: int, oldest_queued: float | None) -> None:
        """``oldest_queued``: when the oldest job that waits was created, in seconds since the epoch."""
        for state, count in zip(LIVE_JOBS, (queued, running), strict=True):
            self.jobs.labels(state).set(count)
        self.oldest_queued_job.set_function(lambda: 0.0 if oldest_queued is None else time.time() - oldest_queued)

    def show_stored_bytes(self, room: str, size: int) -> None:
        self.stored_bytes.labels(room).set(size)

    def count_storage_refusal(self) -> None:
        self.storage_refusals.inc()

    def count_job_end(self, kind: str, state: str) -> None:
        self.jobs_ended.labels(kind, state).inc()

    def count_attempt(self, *, is_first: bool) -> None:
        """Count an attempt at a job."""
        self.job_attempts.labels(ATTEMPTS[0 if is_first else 1]).inc()

    def count_step(self, outcome: str) -> None:
        self.job_steps.labels(outcome).inc()

    def expect_deliveries(self, receivers: Iterable[str]) -> None:
        """Begin the series of these receivers, or Prometheus would not see the first failure as an increase."""
        for receiver in receivers:
            for result in DELIVERIES:
                self.deliveries.labels(receiver, result)

    def count_delivery(self, receiver: str, result: str) -> None:
        self.deliveries.labels(receiver, result).inc()

    def show_deliveries(self, pending: int, overdue: int) -> None:
        self.deliveries_pending.set(pending)
        self.deliveries_overdue.set(overdue)

    def count_batch_line(self, status: int) -> None:
        self.batch_lines.labels(str(status)).inc()

    def observe_request(self, endpoint: str, status: int, seconds: float) -> None:
        self.requests.labels(endpoint, str(status)).inc()
        self.request_seconds.labels(endpoint).observe(seconds)

    def observe_first_event(self, endpoint: str, seconds: float) -> None:
        self.first_event_seconds.labels(endpoint).observe(seconds)

    def count_shed(self, reason: str) -> None:
        self.shed.labels(reason).inc()

    def observe(self, task: str, event: Event) -> None:
        """Count an event of a program. ``task``: the program's."""
        match event:
            case CallEnded(role, usage, seconds, model):
                if (calls := self._calls.get((role, model))) is None:
                    calls = self._calls[role, model] = _CallSeries(self, role, model)
                calls.count(usage, seconds)
            case EvaluatorEnded(evaluator, seconds, failed):
                self.evaluator_seconds.labels(evaluator).observe(seconds)
                self.evaluator_errors.labels(evaluator).inc(1 if failed else 0)
            case ConstraintFailed(cause):
                self.constraint_failures.labels(cause).inc()
            case RepairEnded(rule, kept):
                self.repairs.labels(rule, "kept" if kept else "dropped").inc()
            case TextAborted(rule, lost):
                self.aborts.labels(rule, "lost" if lost else "kept").inc()
            case RoundEnded(ended):
                self.rounds_without_gain.labels(task).inc(0 if ended.accepted else 1)
            case Refined():
                self._observe_refined(task, event)

    def _observe_refined(self, task: str, done: Refined) -> None:
        self.rounds.labels(task).observe(len(done.rounds) - 1)
        self.stops.labels(task, done.stop_reason).inc()
        draft, final = (done.assessments.get(candidate.id) for candidate in (done.first, done.selected))
        self._count_verified(done, draft, final)
        if draft is None or final is None or draft.score is None or final.score is None:
            return
        self.score.labels("draft").observe(draft.score)
        self.score.labels("final").observe(final.score)
        # A complete text displaces one that was cut whatever their scores, and a sum of gains must not fall.
        self.score_gain.labels(task).observe(max(0.0, final.score - draft.score))

    def _count_verified(self, done: Refined, draft: Assessment | None, final: Assessment | None) -> None:
        """Count what a program with hard verifiers wrote. A draft that its caller gave says nothing of any model."""
        writer = done.models.writer
        if final is None or final.passed is None:
            return
        if draft is not None and draft.passed is not None and done.first.model is not None:
            self.first_drafts.labels(done.first.model, OUTCOMES[draft.passed]).inc()
        self.verified_texts.labels(writer, OUTCOMES[final.passed]).inc()
        self.verified_tokens.labels(writer).inc(sum(usage.tokens for usage in done.usage.values()))

    def page(self, state: str) -> bytes:
        """All series in the text exposition format: Redraft's, then those of the process and of the engine.

        ``state``: the current one of STATES.
        """
        for known in STATES:
            self.state.labels(known).set(known == state)
        return generate_latest(self.registry) + generate_latest(REGISTRY)


class _CallSeries:
    """The series of a role's calls to a model. They are looked up once, because that costs more than counting."""

    def __init__(self, metrics: Metrics, role: CallRole, model: str) -> None:
        self._seconds = metrics.step_seconds.labels(role, model)
        self._prompt = metrics.tokens.labels(role, model, "prompt")
        self._cached = metrics.tokens.labels(role, model, "cached")
        self._completion = metrics.tokens.labels(role, model, "completion")
        self._reasoning = metrics.tokens.labels(role, model, "reasoning")

    def count(self, usage: Usage, seconds: float) -> None:
        self._seconds.observe(seconds)
        self._prompt.inc(usage.prompt_tokens)
        self._cached.inc(usage.cached_tokens)
        self._completion.inc(usage.completion_tokens)
        self._reasoning.inc(usage.reasoning_tokens)
