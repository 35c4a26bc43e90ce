"""The rows on what happens inside a program: rounds and scores, engine calls, evaluators."""

from deploy.grafana.model import Panel, Query, Row
from deploy.grafana.queries import HERE, mean, quantile, rate, ratio

STEP_BUCKETS = "instance_role:redraft_step_seconds_bucket:rate5m"
EVALUATOR_BUCKETS = "instance_evaluator:redraft_evaluator_seconds_bucket:rate5m"

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
            "First drafts that pass",
            "Share of the first drafts under hard verifiers that pass all of them, by the model that wrote them.",
            [
                Query(
                    ratio(
                        rate("model", "redraft_first_drafts_total", f'outcome="passed",{HERE}', window="15m"),
                        rate("model", "redraft_first_drafts_total", window="15m"),
                    ),
                    "{{model}}",
                )
            ],
            unit="percentunit",
            most=1.0,
        ),
        Panel(
            "Tokens for each passing text",
            "Tokens of refine programs with verifiers for each returned text that passes, by the model that wrote it.",
            [
                Query(
                    ratio(
                        rate("model", "redraft_verified_tokens_total", window="15m"),
                        rate("model", "redraft_verified_texts_total", f'outcome="passed",{HERE}', window="15m"),
                    ),
                    "{{model}}",
                )
            ],
        ),
        Panel(
            "What answers for learned",
            "The adapter, or the main model, that answers for the model that learns.",
            [Query(f"redraft_learned_model{{{HERE}}} == 1", "{{serves}}")],
        ),
        Panel(
            "Trials of the canary",
            "Requests in which a candidate and what serves both wrote first drafts, by whose passed more often. All "
            "services that share a folder show the same. And the canaries that have ended within an hour.",
            [
                Query(f"max by (winner) (redraft_canary_trials{{{HERE}}})", "{{winner}}"),
                Query(
                    f"sum by (verdict) (increase(redraft_canary_verdicts_total{{{HERE}}}[1h]))", "ended: {{verdict}}"
                ),
            ],
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
