"""The autoscaler of the simulated day decides as Kubernetes documents it."""

from autoscaler import Autoscaler, Settings

SETTINGS = Settings(
    minReplicas=1, maxReplicas=8, lagThreshold=100, stabilizationSeconds=60, periodSeconds=12, syncSeconds=15
)


def decisions(lags: list[float], replicas: int = 1) -> list[int]:
    scaler = Autoscaler(SETTINGS, replicas)
    return [scaler.look(15.0 * number, lag) for number, lag in enumerate(lags)]


def test_a_replica_more_for_each_threshold_of_lag_begun():
    assert decisions([99, 111, 301]) == [1, 2, 4]


def test_a_tenth_more_than_allowed_changes_nothing():
    assert decisions([109]) == [1]
    assert decisions([111]) == [2]
    assert decisions([219], 2) == [2]


def test_at_most_four_pods_or_twice_as_many_come_at_once():
    assert decisions([800, 800]) == [5, 8]
    assert decisions([800], 3) == [7]


def test_never_more_than_there_are_partitions():
    assert decisions([800, 800, 10_000]) == [5, 8, 8]


def test_pods_go_one_at_a_time_and_only_when_fewer_were_enough_for_the_whole_window():
    assert decisions([400, 0, 0, 0, 0, 0, 0, 0], 4) == [4, 4, 4, 4, 3, 2, 1, 1]


def test_a_lag_that_comes_back_within_the_window_keeps_them():
    assert decisions([400, 0, 0, 301, 0, 0, 0, 0], 4) == [4, 4, 4, 4, 4, 4, 4, 3]
