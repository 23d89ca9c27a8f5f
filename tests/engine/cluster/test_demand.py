"""How many engines Ray Serve's autoscaler is to run."""

from types import SimpleNamespace

import pytest

from dia_server.engine.cluster.demand import FORGET_S, METRIC, Demand, scale


def test_the_demand_of_all_servers_counts_until_they_are_silent() -> None:
    now = 0.0
    demand = Demand(lambda: now)
    demand.put("one", 3)
    now = FORGET_S / 2
    demand.put("two", 4)
    demand.put("two", 5)
    assert demand.total == 8
    now = FORGET_S
    assert demand.total == 5
    now = 2 * FORGET_S
    assert demand.total == 0


@pytest.mark.parametrize(
    ("demands", "engines"),
    [
        ([0.0], 0),  # Ray Serve keeps the minimum
        ([0.8], 1),
        ([0.81], 2),
        ([1.0, 6.25, 0.0], 8),  # one replica has heard of all servers
    ],
)
def test_a_fifth_of_the_slots_is_to_be_free(demands: list[float], engines: int) -> None:
    measured = {METRIC: {str(n): demand for n, demand in enumerate(demands)}}
    assert scale(SimpleNamespace(aggregated_metrics=measured, target_num_replicas=3)) == (engines, {})


@pytest.mark.parametrize("measured", [None, {}, {METRIC: {}}])
def test_without_a_measurement_the_number_stays(measured: dict[str, dict[str, float]] | None) -> None:
    assert scale(SimpleNamespace(aggregated_metrics=measured, target_num_replicas=3)) == (3, {})
