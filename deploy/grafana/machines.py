"""The rows on what programs run on: engines and replicas."""

from deploy.grafana.model import Panel, Query, Row
from deploy.grafana.queries import ENGINE, HERE, mean, rate, ratio

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
            "Read and written a second, for all requests.",
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
