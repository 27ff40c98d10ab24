"""Pre-fork servers: an identity made before the fork is followed after it, by a thread of the child's own."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

from e2e.mtls.workloads import CLIENT_ID, Pair, Workload, client_to, pair_of_workloads, served
from meshlib.identity import Identity


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


def _polls(identity: Identity, answers: Any) -> None:
    identity.watch()
    answers.put(identity.version)


def test_a_fork_amid_a_look_at_the_files_locks_no_child_out() -> None:
    """The thread that looked is the parent's: in the child nobody would ever give its lock back."""
    fork = multiprocessing.get_context("fork")
    with pair_of_workloads() as pair:
        identity = pair.client.identity
        looking, forked = threading.Event(), threading.Event()

        def slow(_before: object, _after: object) -> None:
            looking.set()
            assert forked.wait(20)

        identity.on_change(slow)
        identity.watch()
        pair.client.renew()
        assert looking.wait(20)
        answers = fork.Queue()
        child = fork.Process(target=_polls, args=(identity, answers))
        child.start()
        try:
            assert answers.get(timeout=10) == 1
        finally:
            forked.set()
            child.terminate()
            child.join(20)
