"""A program whose calls are mirrored, before and after it forks: `forking_mirrors.py MAIN SHADOW`, two addresses.

The parent leaves a copy under way (the shadow hangs on `/hang`) when it forks. Prints what each process has under way.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from meshlib import Mesh
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.mirror import RequestMirrorPolicy
from meshlib.model.route import Route, RouteAction


def call(mesh: Mesh, path: str) -> None:
    with mesh.http.client("payments") as client:
        assert client.get(path, headers={"x-pid": str(os.getpid())}).status_code == 200


def copied(mesh: Mesh, left: int) -> None:
    """Wait until no more copies than that are under way."""
    waiting = threading.Event()
    while mesh.mirrors.under_way > left:
        waiting.wait(0.005)


def main() -> None:
    signal.alarm(30)
    up, shadow = sys.argv[1:]
    action = RouteAction("up", request_mirror_policies=(RequestMirrorPolicy("shadow"),))
    mesh = Mesh.static(
        {"up": [up], "shadow": [shadow]},
        routes={"payments": [Route(RouteMatch(PathMatcher("prefix", "/")), action)]},
    )
    if os.environ["STATE"] == "used":
        call(mesh, "/hang")
        call(mesh, "/parent")
        copied(mesh, 1)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        assert mesh.mirrors.under_way == 0, "the parent's copies are the parent's"
        call(mesh, "/child")
        copied(mesh, 0)
        mesh.close()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    call(mesh, "/after")
    copied(mesh, 1 if os.environ["STATE"] == "used" else 0)
    mesh.close()
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main()
