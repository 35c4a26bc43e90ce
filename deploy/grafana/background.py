"""The rows on work that nobody waits for at a connection: batches, jobs, traces and notices."""

from deploy.grafana.model import Panel, Query, Row
from deploy.grafana.queries import HERE, rate

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
