"""An explanation for people: the decision path from the top down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshlib.explain.explanation import Explanation

_LABEL = 15
_MOST_ENDPOINTS = 20


def lines(result: Explanation) -> Iterator[str]:
    """What happens to the request, a line at a time."""
    yield f"{result.method} {result.url}"
    yield from _path(result)
    yield from _upstream(result)
    yield from _policies(result)
    yield from _outcome(result)


def _path(result: Explanation) -> Iterator[str]:
    if result.virtual_host is None:
        return
    yield _line("listener", result.listener)
    yield _line("routes", result.route_configuration)
    yield _line("virtual host", result.virtual_host)
    if result.virtual_cluster is not None:
        yield _line("v. cluster", result.virtual_cluster)
    for trial in result.trials:
        name = f"[{trial['index']}] {trial['route']}".rstrip()
        yield _line("route", f"{name}: matched" if trial["matched"] else f"{name}: no, {trial['failed']}")
    for share in result.weights:
        yield _line("weight", f"{share['weight']} {share['cluster']}{'  <- drawn' if share['chosen'] else ''}")
    for entry in result.filters:
        settings = ", ".join(f"{name}={_short(value)}" for name, value in entry.items() if name != "type")
        yield _line("filter", f"{entry['type']} ({settings})")


def _upstream(result: Explanation) -> Iterator[str]:
    if result.cluster is not None:
        yield _line("cluster", result.cluster + _state(result.cluster_state))
    for category, fraction in result.overload_drops.items():
        yield _line("drops", f"{100 * fraction:g} % ({category})")
    if result.request_hash is not None:
        yield _line("request hash", f"{result.request_hash:016x}")
    if result.balancing is not None:
        yield from _balancing(result.balancing, result.endpoint)
    elif result.endpoint is not None:
        yield _line("endpoint", result.endpoint)
    if result.chosen_because is not None:
        yield _line("chosen", result.chosen_because)
    if result.session is not None:
        yield _line("session", _session(result.session))
    if result.endpoint is not None:
        yield _line("request", f"{result.method} {result.path}")
        for name, value in result.headers:
            yield _line("", f"{name}: {value}")
    yield from _actions(result)


def _session(session: dict[str, Any]) -> str:
    if session["wanted"] is None:
        return "none yet: the response will name the endpoint"
    if session["honoured"]:
        return f"wants {session['wanted']}, and gets it"
    return f"wants {session['wanted']}, which cannot be used{'; it is strict' if session['strict'] else ''}"


def _actions(result: Explanation) -> Iterator[str]:
    for copy in result.mirrors:
        missing = "" if copy["exists"] else " (no such cluster: no copy)"
        yield _line("mirror", f"{copy['percent']:g} % to {copy['cluster']} as {copy['authority']}{missing}")
    if result.internal_redirect is not None:
        codes = ", ".join(map(str, result.internal_redirect["codes"]))
        most = result.internal_redirect["max_internal_redirects"]
        yield _line("redirects", f"{codes} are followed, {most} at most")


def _state(state: dict[str, Any] | None) -> str:
    """` (3 requests, 1 ejected, breaker open)`; nothing of a cluster at rest."""
    if state is None:
        return ""
    parts = [
        f"{state[name]} {what}" for name, what in (("requests", "requests"), ("ejected", "ejected")) if state[name]
    ]
    parts += [f"breaker {state['breaker']}"] if state["breaker"] not in (None, "closed") else []
    return f" ({', '.join(parts)})" if parts else ""


def _balancing(balancing: dict[str, Any], chosen: str | None) -> Iterator[str]:
    subset = f", subset {balancing['subset']}" if balancing["subset"] else ""
    yield _line("balancing", balancing["policy"] + subset)
    for priority in balancing["priorities"]:
        load = f"{priority['healthy_load']} % healthy, {priority['degraded_load']} % degraded"
        yield _line("priority", f"{priority['priority']}: {load}{', in panic' if priority['panic'] else ''}")
        endpoints = priority["endpoints"]
        shown = [entry for entry in endpoints if entry["address"] == chosen]
        shown += [entry for entry in endpoints if entry["address"] != chosen][: _MOST_ENDPOINTS - len(shown)]
        for entry in (entry for entry in endpoints if entry in shown):
            yield _line("endpoint", _endpoint(entry, chosen))
        if len(endpoints) > len(shown):
            yield _line("", f"... and {len(endpoints) - len(shown)} more")


def _endpoint(entry: dict[str, Any], chosen: str | None) -> str:
    reasons = (("ejected", "ejected"), ("out_of_reach", "out of reach"))
    said = (*(words for name, words in reasons if entry[name]), *entry["health_flags"])
    state = ", ".join([entry["availability"], *said])
    state += f", {entry['active']} active" if entry["active"] else ""
    where = f" {entry['locality']}" if entry["locality"] else ""
    mark = "  <- first attempt" if entry["address"] == chosen else ""
    return f"{entry['address']}{where} weight {entry['weight']}, {state}{mark}"


def _policies(result: Explanation) -> Iterator[str]:
    if result.timeouts is not None:
        given = [
            f"{name.replace('_', ' ')} {value:g} s" for name, value in result.timeouts.items() if value is not None
        ]
        yield _line("timeouts", ", ".join(given) or "none")
    if result.retry_policy is not None:
        yield _line("retries", _retries(result.retry_policy))
    elif result.timeouts is not None:
        yield _line("retries", "none")
    if result.thresholds is not None:
        limits = {name: value for name, value in result.thresholds.items() if value is not None}
        yield _line("thresholds", ", ".join(f"{name} {value}" for name, value in limits.items()))


def _retries(policy: dict[str, Any]) -> str:
    codes = policy["retriable_status_codes"]
    parts = [f"{policy['num_retries']} on {', '.join(policy['retry_on']) or 'nothing'}"]
    parts += [f"codes {', '.join(map(str, codes))}"] if codes else []
    parts += [f"back-off {policy['base_interval']:g} to {policy['max_interval']:g} s"]
    parts += policy["retriable_headers"]
    parts += [f"or when {' or '.join(policy['reset_headers'])} say" if policy["reset_headers"] else ""]
    parts += ["not on hosts tried before" if policy["previous_hosts"] else ""]
    parts += ["hedged at the per-try timeout" if policy["hedge_on_per_try_timeout"] else ""]
    return ", ".join(filter(None, parts))


def _outcome(result: Explanation) -> Iterator[str]:
    if result.redirect is not None:
        yield _line("redirect", f"{result.redirect['status']} to {result.redirect['location']}")
    if result.direct_response is not None:
        yield _line("answer", f"{result.direct_response['status']} {result.direct_response['body']!r}")
    for name, value in result.response_headers:
        yield _line("", f"{name}: {value}")
    if result.pass_through:
        yield _line("passes through", result.reason)
    elif result.response_flag is not None:
        status = f" ({result.failure_status})" if result.failure_status else ""
        yield _line("fails", f"{result.response_flag}{status}: {result.reason}")


def _line(label: str, value: object) -> str:
    return f"  {label:<{_LABEL}}{value}".rstrip()


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}={_short(item)}" for name, item in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)
