"""Pre-fork servers: an identity made before the fork is followed after it, by a thread of the child's own."""

from __future__ import annotations

import multiprocessing
from typing import Any

from e2e.mtls.workloads import CLIENT_ID, Pair, Workload, client_to, pair_of_workloads, served


def _in_the_child(pair: Pair, port: int, answers: Any) -> None:
    with client_to(port, pair.client.identity) as client:
        answers.put(client.get("/").json()["extension"])
        _renewed(pair.client)
        answers.put(client.get("/").json()["extension"])
        answers.put(pair.client.identity.version)


def _renewed(workload: Workload) -> None:
    workload.renew()
    workload.until_taken()


def test_a_forked_child_follows_the_files(recwarn: Any) -> None:
    fork = multiprocessing.get_context("fork")
    with pair_of_workloads() as pair, served(pair.server.identity) as port:
        _renewed(pair.client)  # so that a thread follows the files before the fork
        answers = fork.Queue()
        child = fork.Process(target=_in_the_child, args=(pair, port, answers))
        child.start()
        assert [answers.get(timeout=20) for _ in range(3)] == [CLIENT_ID, CLIENT_ID, 2]
        child.join(20)
        assert child.exitcode == 0
        _renewed(pair.client)  # and the parent's thread still does
