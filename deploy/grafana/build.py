"""The dashboard. ``python -m deploy.grafana.build`` writes dashboards/redraft.json.

It is code because its many regular facts (grid positions, ids, data sources, the filter by replica) are then stated
once, and a review reads what is shown.
"""

import json
from pathlib import Path

from deploy.grafana.model import Panel, Query, Row, dashboard

TARGET = Path(__file__).parent / "dashboards" / "redraft.json"

PROGRAMS = 'endpoint=~"/v1/(generate|critique|refine|chat/completions|responses|batch)"'
HERE = 'instance=~"$instance"'
ENGINE = 'instance=~"$engine"'
REQUESTS = f"redraft_requests_total{{{PROGRAMS},{HERE}}}"
OVERLOAD = f'redraft_requests_shed_total{{reason=~"overloaded|deadline",{HERE}}}'
REQUEST_BUCKETS = "instance_endpoint:redraft_request_seconds_bucket:rate5m"
EVENT_BUCKETS = "instance_endpoint:redraft_first_event_seconds_bucket:rate5m"
STEP_BUCKETS = "instance_role:redraft_step_seconds_bucket:rate5m"
EVALUATOR_BUCKETS = "instance_evaluator:redraft_evaluator_seconds_bucket:rate5m"


def quantile(share: float, recorded: str, by: str) -> str:
    return f"histogram_quantile({share}, sum by ({by}, le) ({recorded}{{{HERE}}}))"


def rate(by: str, metric: str, where: str = HERE, window: str = "$__rate_interval") -> str:
    """A second; by default over what Grafana takes for a good window at this zoom."""
    return f"sum by ({by}) (rate({metric}{{{where}}}[{window}]))"


def ratio(part: str, whole: str) -> str:
    """Nothing, rather than 0 / 0, where there is no traffic."""
    return f"{part} / ({whole} > 0)"


def mean(by: str, histogram: str, where: str = HERE) -> str:
    """Over 15 minutes, since programs are few."""
    return ratio(rate(by, f"{histogram}_sum", where, "15m"), rate(by, f"{histogram}_count", where, "15m"))


def stat(title: str, description: str, expr: str, unit: str = "short", red_above: float | None = None) -> Panel:
    return Panel(title, description, [Query(expr, "")], unit, "stat", width=4, height=4, red_above=red_above)


def latency(name: str, share: float, *objective: Query) -> Panel:
    return Panel(
        f"Latency, {name}",
        "From a request's arrival to the end of its answer, over five minutes. Streams count until their last event."
        + " Dashed: what it should stay below." * len(objective),
        [Query(quantile(share, REQUEST_BUCKETS, "endpoint"), "{{endpoint}}"), *objective],
        unit="s",
    )


AT_A_GLANCE = Row(
    "At a glance",
    [
        stat("Replicas ready", "Replicas that serve programs now.", f'sum(redraft_state{{state="ready",{HERE}}})'),
        stat(
            "Alerts firing",
            "docs/operate/alerts.md says of each what it means and what to do.",
            'count(ALERTS{alertname=~"Redraft.+",alertstate="firing"}) or vector(0)',
            red_above=1,
        ),
        stat("Programs", "A second, over five minutes.", f"sum(rate({REQUESTS}[5m]))", "reqps"),
        stat(
            "Refused",
            "Share of programs that found no place, over five minutes.",
            ratio(f"sum(rate({OVERLOAD}[5m]))", f"sum(rate({REQUESTS}[5m]))"),
            "percentunit",
            red_above=0.01,
        ),
        stat(
            "Good enough",
            "Share of refine programs that ended because their text was good enough: target or no_issues.",
            ratio(
                f'(sum(rate(redraft_refine_stops_total{{reason=~"target|no_issues",{HERE}}}[15m])) or vector(0))',
                f"sum(rate(redraft_refine_stops_total{{{HERE}}}[15m]))",
            ),
            "percentunit",
        ),
        stat(
            "Prompt tokens cached",
            "Share that the engine did not have to compute, over five minutes.",
            ratio(
                f'sum(rate(redraft_tokens_total{{kind="cached",{HERE}}}[5m]))',
                f'sum(rate(redraft_tokens_total{{kind="prompt",{HERE}}}[5m]))',
            ),
            "percentunit",
        ),
    ],
)

TRAFFIC = Row(
    "Traffic and latency",
    [
        Panel(
            "Programs by endpoint",
            "Requests of the endpoints that ask the engine for something, whatever came of them; a batch is one.",
            [Query(rate("endpoint", "redraft_requests_total", f"{PROGRAMS},{HERE}"), "{{endpoint}}")],
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Programs by status",
            "499: the client left before its answer began. 500 is always a bug.",
            [Query(rate("status", "redraft_requests_total", f"{PROGRAMS},{HERE}"), "{{status}}")],
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Replicas by state",
            "What the readiness routes say.",
            [Query(f"sum by (state) (redraft_state{{{HERE}}}) > 0", "{{state}}")],
            stacked=True,
        ),
        latency("p50", 0.5),
        latency(
            "p95", 0.95, Query("endpoint:redraft_request_seconds:objective", "objective {{endpoint}}", dashed=True)
        ),
        latency("p99", 0.99),
        Panel(
            "First event",
            "From a request's arrival to its first piece of work done, over five minutes.",
            [
                Query(quantile(0.5, EVENT_BUCKETS, "endpoint"), "p50 {{endpoint}}"),
                Query(quantile(0.95, EVENT_BUCKETS, "endpoint"), "p95 {{endpoint}}"),
            ],
            unit="s",
        ),
        Panel(
            "At work and waiting",
            "Programs that have a place, and those that wait for one.",
            [
                Query(f"sum(redraft_requests_in_progress{{{HERE}}})", "at work"),
                Query(f"sum(redraft_requests_queued{{{HERE}}})", "waiting"),
            ],
        ),
        Panel(
            "Refused by reason",
            "Programs refused before any work.",
            [
                Query(rate("reason", "redraft_requests_shed_total"), "{{reason}}"),
                Query(f"sum(rate(redraft_storage_refusals_total{{{HERE}}}[$__rate_interval]))", "storage_full"),
            ],
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Requests sent again",
            "Under their idempotency key, a second: replayed, joined to the first one's work, or refused with 409.",
            [Query(rate("outcome", "redraft_requests_repeated_total"), "{{outcome}}")],
            unit="ops",
            stacked=True,
        ),
        Panel(
            "Answers kept for them",
            "At most REDRAFT_IDEMPOTENCY_BYTES.",
            [Query(f"sum(redraft_kept_answers_bytes{{{HERE}}})", "kept")],
            unit="bytes",
        ),
    ],
)

REFINING = Row(
    "Refining",
    [
        Panel(
            "Refine programs by stop reason",
            "Why they ended.",
            [Query(rate("reason", "redraft_refine_stops_total"), "{{reason}}")],
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Rounds a program",
            "Mean of the rounds after round 0.",
            [Query(mean("task", "redraft_refine_rounds"), "{{task}}")],
        ),
        Panel(
            "Rounds without gain",
            "Share of rounds that did not change the incumbent. The last ones of a program often do not: with a "
            "patience of two, two in three is usual.",
            [
                Query(
                    ratio(
                        rate("task", "redraft_rounds_without_gain_total", window="15m"),
                        rate("task", "redraft_refine_rounds_sum", window="15m"),
                    ),
                    "{{task}}",
                )
            ],
            unit="percentunit",
        ),
        Panel(
            "Score, draft to final",
            "Mean score of the first drafts and of the returned texts.",
            [Query(mean("stage", "redraft_refine_score"), "{{stage}}")],
            most=1.0,
        ),
        Panel(
            "Gain",
            "Mean of the final score less the first draft's.",
            [Query(mean("task", "redraft_refine_score_gain"), "{{task}}")],
        ),
        Panel(
            "Programs that gained",
            "Share of refine programs whose returned text scores higher than their first draft.",
            [
                Query(
                    "1 - "
                    + ratio(
                        rate("task", "redraft_refine_score_gain_bucket", f'le="0.0",{HERE}', window="15m"),
                        rate("task", "redraft_refine_score_gain_count", window="15m"),
                    ),
                    "{{task}}",
                )
            ],
            unit="percentunit",
            most=1.0,
        ),
        Panel(
            "Trust in judges",
            "The level of trust in each model as a judge. Without drive, nothing is revised for the judge's sake.",
            [Query(f"redraft_judge_trust{{{HERE}}} == 1", "{{model}}: {{level}}")],
        ),
        Panel(
            "Pairs ranked rightly",
            "Share of labelled pairs of a right and a wrong reply that each judge ranked rightly. A coin has 50 %.",
            [Query(f"redraft_judge_share{{{HERE}}}", "{{model}}")],
            unit="percentunit",
            most=1.0,
        ),
    ],
)

CALLS = Row(
    "Tokens and engine calls",
    [
        Panel(
            "Prompt tokens by role",
            "Cached ones are among them.",
            [Query(rate("role", "redraft_tokens_total", f'kind="prompt",{HERE}'), "{{role}}")],
            unit="short",
            stacked=True,
        ),
        Panel(
            "Completion tokens by role",
            "Tokens written.",
            [Query(rate("role", "redraft_tokens_total", f'kind="completion",{HERE}'), "{{role}}")],
            unit="short",
            stacked=True,
        ),
        Panel(
            "Cached share by role",
            "Of the prompt tokens. A drop means that something breaks the shared prefix, or that the KV cache is too "
            "small.",
            [
                Query(
                    ratio(
                        rate("role", "redraft_tokens_total", f'kind="cached",{HERE}'),
                        rate("role", "redraft_tokens_total", f'kind="prompt",{HERE}'),
                    ),
                    "{{role}}",
                )
            ],
            unit="percentunit",
            most=1.0,
        ),
        Panel(
            "Engine calls by role",
            "Calls a second.",
            [Query(rate("role", "redraft_step_seconds_count"), "{{role}}")],
            unit="ops",
            stacked=True,
        ),
        Panel(
            "Time of engine calls, p50",
            "Over five minutes.",
            [Query(quantile(0.5, STEP_BUCKETS, "role"), "{{role}}")],
            unit="s",
        ),
        Panel(
            "Time of engine calls, p95",
            "Over five minutes.",
            [Query(quantile(0.95, STEP_BUCKETS, "role"), "{{role}}")],
            unit="s",
        ),
    ],
)

EVALUATORS = Row(
    "Evaluators",
    [
        Panel(
            "Evaluations",
            "Candidates evaluated a second.",
            [Query(rate("evaluator", "redraft_evaluator_seconds_count"), "{{evaluator}}")],
            unit="ops",
            stacked=True,
        ),
        Panel(
            "Errors",
            "Share of evaluations that failed.",
            [
                Query(
                    ratio(
                        rate("evaluator", "redraft_evaluator_errors_total"),
                        rate("evaluator", "redraft_evaluator_seconds_count"),
                    ),
                    "{{evaluator}}",
                )
            ],
            unit="percentunit",
            most=1.0,
        ),
        Panel(
            "Repairs",
            "Rules that code repaired in texts, a second. Those that it tried without success are not shown.",
            [Query(rate("rule", "redraft_repairs_total", f'outcome="kept",{HERE}'), "{{rule}}")],
            stacked=True,
        ),
        Panel(
            "Texts stopped early",
            "A second. Lost ones were replaced; the others had all that they needed, or began to repeat themselves.",
            [Query(rate("rule, outcome", "redraft_aborts_total"), "{{rule}}, {{outcome}}")],
            stacked=True,
        ),
        Panel(
            "Constraint failures",
            "Texts a second that do not keep to what they were sampled under. There should be none.",
            [Query(rate("cause", "redraft_constraint_failures_total"), "{{cause}}")],
            stacked=True,
        ),
        Panel(
            "Time of an evaluation, p95",
            "Over five minutes.",
            [Query(quantile(0.95, EVALUATOR_BUCKETS, "evaluator"), "{{evaluator}}")],
            unit="s",
        ),
    ],
)

BATCHES = Row(
    "Batches and models",
    [
        Panel(
            "Lines of batches by status",
            "Lines answered a second; the status is the line's own.",
            [Query(rate("status", "redraft_batch_lines_total"), "{{status}}")],
            unit="ops",
            stacked=True,
        ),
        Panel(
            "Lines of batches waiting",
            "Not yet begun. They give way to all other requests.",
            [Query(f"sum(redraft_batch_lines_waiting{{{HERE}}})", "waiting")],
        ),
        Panel(
            "Engine calls by model",
            "Calls a second: who writes, criticises and judges.",
            [Query(rate("role, model", "redraft_step_seconds_count"), "{{role}}: {{model}}")],
            unit="ops",
            stacked=True,
        ),
    ],
)

JOBS = Row(
    "Jobs, traces and notices",
    [
        Panel(
            "Jobs by state",
            "Those that have not ended, in the store of which the replica with most knows.",
            [Query(f"max by (state) (redraft_jobs{{{HERE}}})", "{{state}}")],
            stacked=True,
        ),
        Panel(
            "Oldest job waiting",
            "Time since it was accepted. Jobs also wait while their engine cannot serve.",
            [Query(f"max(redraft_oldest_queued_job_seconds{{{HERE}}})", "oldest")],
            unit="s",
        ),
        Panel(
            "Jobs ended",
            "A second, by what they ended as.",
            [Query(rate("kind, state", "redraft_jobs_ended_total"), "{{kind}}: {{state}}")],
            unit="ops",
            stacked=True,
        ),
        Panel(
            "Attempts at jobs",
            "Begun a second: the first of a job, or again after its process ended or its engine was away.",
            [Query(rate("attempt", "redraft_job_attempts_total"), "{{attempt}}")],
            unit="ops",
            stacked=True,
        ),
        Panel(
            "Steps of jobs",
            "A second: made, replayed from the record, or lost in the middle and so computed again.",
            [Query(rate("outcome", "redraft_job_steps_total"), "{{outcome}}")],
            unit="ops",
            stacked=True,
        ),
        Panel(
            "Stored traces and feedback",
            "A second: traces that were stored, failed, were dropped or refused, and what callers said of them.",
            [
                Query(rate("outcome", "redraft_stored_traces_total"), "{{outcome}}"),
                Query(rate("kind", "redraft_feedback_total"), "feedback: {{kind}}"),
            ],
            unit="ops",
        ),
        Panel(
            "Bytes in the database",
            "What callers keep in the whole store: jobs, files, the input of unfinished batches, and traces.",
            [Query(f"max by (room) (redraft_stored_bytes{{{HERE}}})", "{{room}}")],
            unit="bytes",
            stacked=True,
        ),
        Panel(
            "Notices by result",
            "Attempts to deliver, a second.",
            [Query(rate("receiver, result", "redraft_deliveries_total"), "{{receiver}}: {{result}}")],
            unit="ops",
            stacked=True,
        ),
        Panel(
            "Notices waiting",
            "Not delivered yet; overdue if the next attempt should have been made a minute ago.",
            [
                Query(f"max(redraft_deliveries_pending{{{HERE}}})", "pending"),
                Query(f"max(redraft_deliveries_overdue{{{HERE}}})", "overdue"),
            ],
        ),
    ],
)

ENGINES = Row(
    "Engines",
    [
        Panel(
            "KV cache in use",
            "Near 100 %, sequences are thrown out and computed again.",
            [Query(f"vllm:kv_cache_usage_perc{{{ENGINE}}}", "{{instance}}")],
            unit="percentunit",
            most=1.0,
        ),
        Panel(
            "Sequences",
            "In the batch, and waiting for it. A program has several: siblings, and questions to the judge.",
            [
                Query(f"sum by (instance) (vllm:num_requests_running{{{ENGINE}}})", "running {{instance}}"),
                Query(f"sum by (instance) (vllm:num_requests_waiting{{{ENGINE}}})", "waiting {{instance}}"),
            ],
        ),
        Panel(
            "Preemptions",
            "Sequences thrown out a second because the KV cache was full.",
            [Query(rate("instance", "vllm:num_preemptions_total", ENGINE), "{{instance}}")],
            unit="ops",
        ),
        Panel(
            "Prefix cache hits",
            "Share of the prompt tokens looked up that were found.",
            [
                Query(
                    ratio(
                        rate("instance", "vllm:prefix_cache_hits_total", ENGINE),
                        rate("instance", "vllm:prefix_cache_queries_total", ENGINE),
                    ),
                    "{{instance}}",
                )
            ],
            unit="percentunit",
            most=1.0,
        ),
        Panel(
            "Tokens",
            "Read and written a second, whoever asked.",
            [
                Query(rate("instance", "vllm:prompt_tokens_total", ENGINE), "read {{instance}}"),
                Query(rate("instance", "vllm:generation_tokens_total", ENGINE), "written {{instance}}"),
            ],
        ),
        Panel(
            "Wait for the batch",
            "Mean time that a sequence waits for its place in the batch.",
            [Query(mean("instance", "vllm:request_queue_time_seconds", ENGINE), "{{instance}}")],
            unit="s",
        ),
    ],
)

REPLICAS = Row(
    "Replicas",
    [
        Panel(
            "Programs at work",
            "By replica.",
            [Query(f"redraft_requests_in_progress{{{HERE}}}", "{{instance}}")],
        ),
        Panel(
            "CPU",
            "Cores that the service's own process uses; an engine in it has processes of its own. Near one core, the "
            "event loop is full: add a replica.",
            [Query(f'rate(process_cpu_seconds_total{{job="redraft",{HERE}}}[$__rate_interval])', "{{instance}}")],
        ),
        Panel(
            "Memory",
            "Resident, of the service's own process.",
            [Query(f'process_resident_memory_bytes{{job="redraft",{HERE}}}', "{{instance}}")],
            unit="bytes",
        ),
    ],
)

ROWS = [AT_A_GLANCE, TRAFFIC, REFINING, CALLS, EVALUATORS, BATCHES, JOBS, ENGINES, REPLICAS]


def text() -> str:
    return json.dumps(dashboard(ROWS), indent=2) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())
