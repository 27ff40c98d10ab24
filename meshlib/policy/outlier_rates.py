"""Who stands out by the share of its failures in one interval: success rate and failure percentage
(`DetectorImpl::processSuccessRateEjections`), of what endpoints answered and, kept apart, of reaching them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from meshlib.model.cluster import OutlierDetection
from meshlib.state.cells import EndpointState
from meshlib.state.outliers import Tally

SUCCESS_RATE = "success_rate"
FAILURE_PERCENTAGE = "failure_percentage"
LOCAL_SUCCESS_RATE = "local_origin_success_rate"
LOCAL_FAILURE_PERCENTAGE = "local_origin_failure_percentage"


class Rate(NamedTuple):
    """An endpoint's share of successes in an interval, in percent, and of how many attempts."""

    cell: EndpointState
    success_rate: float
    volume: int


class Outlier(NamedTuple):
    """An endpoint, the detector that it stands out by, and the figures in words."""

    cell: EndpointState
    detector: str
    details: str


def enough_hosts(config: OutlierDetection, hosts: int) -> bool:
    """Whether a cluster of so many hosts can have outliers of this kind at all."""
    return hosts > 0 and hosts >= min(config.success_rate_minimum_hosts, config.failure_percentage_minimum_hosts)


def least_volume(config: OutlierDetection) -> int:
    """With fewer attempts in an interval an endpoint is not looked at."""
    return max(1, min(config.success_rate_request_volume, config.failure_percentage_request_volume))


def outliers(config: OutlierDetection, tallies: Mapping[EndpointState, Tally]) -> Iterator[Outlier]:
    """The outliers of one interval, in the order in which Envoy ejects them; one endpoint may be there several times.
    Local origin counts where errors are split, for then only does anything count as it.
    """
    yield from _by_rates(config, [*_external(tallies)], SUCCESS_RATE, FAILURE_PERCENTAGE)
    if config.split_external_local_origin_errors:
        yield from _by_rates(config, [*_local(tallies)], LOCAL_SUCCESS_RATE, LOCAL_FAILURE_PERCENTAGE)


def _external(tallies: Mapping[EndpointState, Tally]) -> Iterator[Rate]:
    for cell, tally in tallies.items():
        if volume := tally.successes + tally.failures:
            yield Rate(cell, 100.0 * tally.successes / volume, volume)


def _local(tallies: Mapping[EndpointState, Tally]) -> Iterator[Rate]:
    """An answer says that there was a connection, and so does a failure after it: that one counts as both."""
    for cell, tally in tallies.items():
        reached = tally.successes + tally.failures + tally.connected
        if volume := reached + tally.local_failures:
            yield Rate(cell, 100.0 * reached / volume, volume)


def _by_rates(config: OutlierDetection, rates: Iterable[Rate], success: str, failure: str) -> Iterator[Outlier]:
    rates = [rate for rate in rates if rate.cell.ejection is None]
    busy = [rate for rate in rates if rate.volume >= config.success_rate_request_volume]
    if busy and len(busy) >= config.success_rate_minimum_hosts:
        yield from _by_success_rate(config, busy, success)
    busy = [rate for rate in rates if rate.volume >= config.failure_percentage_request_volume]
    if busy and len(busy) >= config.failure_percentage_minimum_hosts:
        yield from _by_failure_percentage(config, busy, failure)


def _by_success_rate(config: OutlierDetection, rates: list[Rate], name: str) -> Iterator[Outlier]:
    average = sum(rate.success_rate for rate in rates) / len(rates)
    deviation = math.sqrt(sum((rate.success_rate - average) ** 2 for rate in rates) / len(rates))
    threshold = average - config.success_rate_stdev_factor / 1000.0 * deviation
    against = f"threshold {threshold:.1f} % (average {average:.1f}, stdev {deviation:.1f}, {len(rates)} hosts)"
    for rate in rates:
        if rate.success_rate < threshold:
            yield Outlier(rate.cell, name, f"{rate.success_rate:.1f} % of {rate.volume} < {against}")


def _by_failure_percentage(config: OutlierDetection, rates: list[Rate], name: str) -> Iterator[Outlier]:
    threshold = config.failure_percentage_threshold
    for rate in rates:
        failed = 100.0 - rate.success_rate
        if failed >= threshold:
            yield Outlier(rate.cell, name, f"{failed:.1f} % of {rate.volume} >= {threshold} %")
