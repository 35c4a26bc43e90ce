"""Ids sort by the time at which they are made, whatever they name."""

import time

from service.programs.ids import make_id, place_of


def test_ids_sort_by_time() -> None:
    made = []
    for prefix in ("ref", "crit", "gen"):
        made.append(place_of(make_id(prefix)))
        time.sleep(0.002)
    assert made == sorted(made)
    assert len(set(map(len, made))) == 1
