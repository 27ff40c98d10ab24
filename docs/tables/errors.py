"""Flags, exceptions and httpx classes, from `meshlib.http.errors`; what to do about each is said here."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise

from meshlib import flags
from meshlib.errors import CallError, CallFailure, CircuitOpenError, error_type
from meshlib.http import errors as adapter
from tables.markdown import complete, table

ADVICE = {
    "NR": "Add a route, or correct the host or path; `meshlib explain` shows which routes were tried and why not.",
    "NFCF": "The control plane did not answer within `fetch_timeout`: see `mesh.issues` and the control plane's log.",
    "NC": "The route names a cluster that the configuration does not have; `meshlib check` finds it in files.",
    "UH": "Every endpoint is unhealthy or ejected with panic off, or the subset or the cluster is empty.",
    "UO": "Too much in flight for `circuit_breakers.thresholds`: shed load, or raise the threshold that is named.",
    "UF": "Refused, unreachable, TLS failed: see `__cause__`. Safe to retry: `retry_on: connect-failure`.",
    "UC": "The connection broke after the request was sent; `retry_on: reset` if the request may be repeated.",
    "UR": "As UC.",
    "UT": "The route's timeout, the per-try timeout or the inherited deadline ran out, whichever came first.",
    "SI": "The endpoint sent nothing for the idle timeout: raise `stream_idle_timeout` for long-lived streams.",
    "UPE": "Not HTTP/1.1, or cut short: check the port, the protocol, and whether the endpoint died meanwhile.",
    "RL": "A `SharedRateLimit` in code refused the call. (A limit from configuration answers 429 instead.)",
    "RLSE": 'The limit\'s store is gone and `on_error="closed"`: mend the store, or choose `local` or `open`.',
}
_KINDS = {
    "CONNECT_TIMEOUT": "no connection within `connect_timeout` of the cluster, or `connect` of the caller's timeout",
    "WRITE_TIMEOUT": "the caller's `write` timeout",
    "POOL_TIMEOUT": "the caller's `pool` timeout",
    "INVALID_REQUEST": "the request itself cannot be sent (line breaks in a header, a body of another length)",
}


def by_flag() -> str:
    """A row per flag that an exception can carry."""
    meanings = _docstrings()
    mapped = {flag.value: (_ours(flag), theirs) for flag, theirs in adapter._THEIRS.items()}
    complete("ADVICE", mapped, ADVICE)
    rows = []
    for flag, (ours, theirs) in mapped.items():
        rows.append((f"`{flag}`", f"`{ours.__name__}`", f"`{theirs}`", meanings[flag], ADVICE[flag]))
        if flag == "UO":
            named = f"`{CircuitOpenError.__name__}`"
            why = "The circuit breaker of the cluster is open.", "Fail over or answer from a fallback until it closes."
            rows.append((f"`{flag}`", named, "`ConnectError`", *why))
    ours, theirs = CallError, adapter._OTHER
    others = ", ".join(f"`{flag}`" for flag in meanings if flag not in mapped)
    rows.append((others, f"`{ours.__name__}`", f"`{theirs}`", "Every other flag.", "Read `failure.reason`."))
    return table(("flag", "meshlib's class", "httpx's class", "meaning", "what to do"), rows)


def _ours(flag: flags.ResponseFlag) -> type[CallError]:
    return error_type(CallFailure(flag, ""))


def by_kind() -> str:
    """Where the wire knows better than the flag which class of httpx it is."""
    kinds = {kind.name: theirs for kind, theirs in adapter._BY_KIND.items()}
    complete("_KINDS", kinds, _KINDS)
    return table(("what happened", "httpx's class"), [(_KINDS[name], f"`{theirs}`") for name, theirs in kinds.items()])


def of_bodies() -> str:
    """What breaks after the headers."""
    rows = [(f"{kind.value}", f"`{ours.__name__}`", f"`{theirs}`") for kind, (ours, theirs) in adapter._BODY.items()]
    rows.append(("anything else (the connection broke)", "`UpstreamResetError`", "`ReadError`"))
    return table(("while the body is read", "meshlib's class", "httpx's class"), rows)


def _docstrings() -> dict[str, str]:
    """The sentence under each flag in its class."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(flags)).body if isinstance(node, ast.ClassDef))
    found = {}
    for name, doc in pairwise(body):
        if isinstance(name, ast.Assign) and isinstance(doc, ast.Expr):
            found[ast.literal_eval(name.value)] = ast.literal_eval(doc.value)
    complete("flags with a sentence", [flag.value for flag in flags.ResponseFlag], found)
    return found
