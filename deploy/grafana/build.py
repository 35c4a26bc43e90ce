"""The dashboard. ``python -m deploy.grafana.build`` writes dashboards/redraft.json.

It is code because its many regular facts (grid positions, ids, data sources, the filter by replica) are then stated
once, and a review reads what is shown. The rows are in the modules that are imported here, the expressions that they
share in ``queries.py``, and Grafana's JSON in ``model.py``.
"""

import json
from pathlib import Path

from deploy.grafana.background import BATCHES, JOBS
from deploy.grafana.machines import ENGINES, REPLICAS
from deploy.grafana.model import dashboard
from deploy.grafana.refining import CALLS, EVALUATORS, REFINING
from deploy.grafana.requests import AT_A_GLANCE, TRAFFIC

TARGET = Path(__file__).parent / "dashboards" / "redraft.json"
ROWS = [AT_A_GLANCE, TRAFFIC, REFINING, CALLS, EVALUATORS, BATCHES, JOBS, ENGINES, REPLICAS]


def text() -> str:
    return json.dumps(dashboard(ROWS), indent=2) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())
