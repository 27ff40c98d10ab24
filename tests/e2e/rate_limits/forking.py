"""A program that asks about limits, forks, and asks in both: `forking.py BOOTSTRAP USER CALLS`. Prints what came back.

By itself, because a test's process has used gRPC in ways that no child survives.
"""

import multiprocessing
import sys
import time

import httpx

from meshlib import Mesh


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def statuses(client: httpx.Client, user: str, count: int) -> list[int]:
    return [client.get("http://up/", headers={"x-user": user}).status_code for _ in range(count)]


def until_refused(client: httpx.Client, user: str) -> list[int]:
    """For quotas, which are assigned while requests go on."""
    until, found = time.monotonic() + 20.0, [200]
    while found != [429] and time.monotonic() < until:
        found = statuses(client, user, 1)
    return found


def child(mesh: Mesh, quotas: bool) -> None:
    with mesh.http.client() as client:
        say("child", *(until_refused(client, "bob") if quotas else statuses(client, "ada", 3)))
    mesh.close()


def main(path: str, quotas: bool) -> None:
    mesh = Mesh.from_file(path).start().wait_ready()
    with mesh.http.client() as client:
        say("parent", *(until_refused(client, "ada") if quotas else statuses(client, "ada", 2)))
        process = multiprocessing.get_context("fork").Process(target=child, args=(mesh, quotas))
        process.start()
        process.join(40)
        say("ended", process.exitcode)
        say("parent", *statuses(client, "ada", 2))
    mesh.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "quotas")
