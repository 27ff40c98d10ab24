"""Cross-origin requests at the server's end of the mesh, for both middlewares."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from meshlib.engine.exchange import Admission
from meshlib.engine.filters import LocalReply
from meshlib.model.cors import CorsPolicy
from meshlib.model.request import RequestHead
from meshlib.routing.cors import CorsRules

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

Pair = tuple[bytes, bytes]
Decide = Callable[[RequestHead, Admission], None]


def make_cors(mesh: Mesh, given: CorsPolicy | bool) -> Decide | None:
    """What answers preflights and marks responses. `given`: one policy for every request, or True for what the mesh's
    routes say of the request's host and path; None when there is nothing to do.
    """
    if given is False:
        return None
    rules_of = _by_route(mesh) if given is True else _one(CorsRules((given,)))

    def decide(head: RequestHead, admission: Admission) -> None:
        if not head.get_all("origin"):
            return
        rules = rules_of(head)
        verdict = None if rules is None else rules(head, mesh.runtime.rng)
        if verdict is not None and verdict.answered:
            admission.reply = LocalReply(200, list(verdict.headers), b"", None, "cors")
        elif verdict is not None:
            admission.headers = (*admission.headers, *verdict.headers)

    return decide


def _one(rules: CorsRules) -> Callable[[RequestHead], CorsRules | None]:
    return lambda head: rules


def _by_route(mesh: Mesh) -> Callable[[RequestHead], CorsRules | None]:
    def rules_of(head: RequestHead) -> CorsRules | None:
        runtime = mesh.runtime
        host = runtime.plan.find(head.scheme, head.authority)
        index = -1 if host is None else host.table.match(head, runtime.rng)
        return None if host is None or index < 0 else host.routes[index].cors

    return rules_of


def replaced(headers: Iterable[Pair], by: tuple[Pair, ...]) -> list[Pair]:
    """The headers with those of the same names exchanged for `by`."""
    names = {name for name, _ in by}
    return [*(pair for pair in headers if pair[0].lower() not in names), *by]


def replaced_text(headers: Iterable[tuple[str, str]], by: tuple[Pair, ...]) -> list[tuple[str, str]]:
    """The same for headers as text."""
    texts = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in by]
    names = {name for name, _ in texts}
    return [*(pair for pair in headers if pair[0].lower() not in names), *texts]
