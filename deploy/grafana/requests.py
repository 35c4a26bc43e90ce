"""The rows on what clients notice: how many programs there are, how long they take, which are refused."""

from deploy.grafana.model import Panel, Query, Row
from deploy.grafana.queries import HERE, quantile, rate, ratio

PROGRAMS = 'endpoint=~"/v1/(generate|critique|refine|chat/completions|responses|messages|batch)"'
REQUESTS = f"redraft_requests_total{{{PROGRAMS},{HERE}}}"
OVERLOAD = f'redraft_requests_shed_total{{reason=~"overloaded|deadline",{HERE}}}'
REQUEST_BUCKETS = "instance_endpoint:redraft_request_seconds_bucket:rate5m"
EVENT_BUCKETS = "instance_endpoint:redraft_first_event_seconds_bucket:rate5m"


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
