"""The tables of batches."""

import sqlalchemy as sa

FORMAT = 2
"""The version of the tables and of what is in them."""

USAGE = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")


def _usage() -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=False, default=0) for name in USAGE]


metadata = sa.MetaData()
batches = sa.Table(
    "redraft_batches",
    metadata,
    # What the caller has asked for.
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("caller", sa.String, nullable=False),
    sa.Column("endpoint", sa.String, nullable=False),
    sa.Column("input_file", sa.String, nullable=False),
    sa.Column("window", sa.Double, nullable=False),
    sa.Column("keep", sa.Double, nullable=False),
    sa.Column("request_id", sa.String, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("metadata", sa.Text),
    # How far it has come.
    sa.Column("state", sa.String, nullable=False),
    sa.Column("end", sa.String, nullable=False),
    sa.Column("in_progress_at", sa.Double),
    sa.Column("finalizing_at", sa.Double),
    sa.Column("completed_at", sa.Double),
    sa.Column("failed_at", sa.Double),
    sa.Column("expired_at", sa.Double),
    sa.Column("cancelling_at", sa.Double),
    sa.Column("cancelled_at", sa.Double),
    # What it has come to. While it is at work its lines are counted.
    sa.Column("model", sa.String),
    sa.Column("faults", sa.Text),
    sa.Column("total", sa.Integer, nullable=False, default=0),
    sa.Column("completed", sa.Integer, nullable=False, default=0),
    sa.Column("failed", sa.Integer, nullable=False, default=0),
    *_usage(),
    sa.Column("output_file", sa.String),
    sa.Column("error_file", sa.String),
    # Who checks its lines or writes its results.
    sa.Column("owner", sa.String),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("free_at", sa.Double, nullable=False, default=0.0),  # when the lease is over
    sa.Index("redraft_batches_by_caller", "caller", "id"),
    sa.Index("redraft_batches_by_state", "state", "free_at"),
)
lines = sa.Table(
    "redraft_batch_lines",
    metadata,
    sa.Column("batch", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    *_usage(),
    sa.Column("custom_id", sa.Text, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("cancelling", sa.Boolean, nullable=False, default=False),
    sa.Column("started", sa.Double),
    sa.Column("answer", sa.Text),
    # What an attempt needs.
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("fence", sa.String, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("worked", sa.Double, nullable=False, default=0.0),
    # Who works on it.
    sa.Column("owner", sa.String),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("idle_attempts", sa.Integer, nullable=False, default=0),
    sa.Column("free_at", sa.Double, nullable=False, default=0.0),  # when the lease or the delay is over
    sa.Index("redraft_batch_lines_by_state", "state", "free_at"),
    sa.Index("redraft_batch_lines_in_order", "batch", "state", "number"),
    # Has all that is counted, so that the lines themselves are not read.
    sa.Index("redraft_batch_lines_by_batch", "batch", "state", *USAGE),
)
steps = sa.Table(
    "redraft_batch_steps",
    metadata,
    sa.Column("batch", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("occurrence", sa.Integer, primary_key=True),
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
)
