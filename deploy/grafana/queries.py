"""The PromQL expressions that several rows share.

``HERE`` and ``ENGINE`` select the replicas and engines that are picked on the dashboard.
"""

HERE = 'instance=~"$instance"'
ENGINE = 'instance=~"$engine"'


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
