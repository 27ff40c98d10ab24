"""Where meshlib's routing differs from Envoy's on purpose. Everything else that differs is a bug.

1. Envoy turns a local answer to a gRPC request (direct response, redirect, no route) into status 200 with
   `grpc-status`. meshlib's answer keeps its HTTP status: nothing goes over a wire, and the gRPC adapter raises its own
   error from it.
2. A path rewrite that changes nothing still sets `x-envoy-original-path` in Envoy. Here the header is set when the
   path has changed; otherwise it would say nothing.
3. Envoy uses one random number a request for runtime fractions and for weighted clusters, so that a 50 % route with
   two shares of 50 % always picks the first. meshlib draws once for the fractions (two fractions of one request agree,
   as in Envoy) and once more for the shares. Not generated.
4. In the response headers of a redirect `%REQ(:PATH)%` is the rewritten path in Envoy, the request's here. Not
   generated.
5. Envoy skips a regex rewrite whose substitution names a group the pattern does not have; meshlib refuses the route,
   so that somebody learns of it. Not generated.
6. Operators whose facts a library does not have (`%DOWNSTREAM_...%`, `%FILTER_STATE%`, `%DYNAMIC_METADATA%`, sizes,
   connections) have no value, and are reported; `%CEL%` is not known: its header is left as it is, and reported.
   `%CONNECTION_ID%`, `%BYTES_SENT%` and their like are numbers in Envoy. Not generated.
7. A path rewrite that takes the leading slash makes Envoy answer 503; meshlib puts the slash back, as Envoy itself does
   in redirects. Not generated.
8. Regexes are refused above a program size of 32 768 (Istio's setting), in Envoy above a runtime key.
9. Envoy takes a request's scheme from `x-forwarded-proto`; a call has the scheme of its URL. Only `require_tls` looks
   at the header. Generated calls have no such header; generated requests of that header have the scheme it says.
10. A path template with a `*` behind `**` (`/***`) is no regular expression: Envoy takes it and it never matches,
   meshlib refuses it. Not generated.
11. Of filter state Envoy hashes texts that are made to be hashed (`envoy.hashable_string`); here every text has a hash.
"""

from dataclasses import replace

from differential.routing_observed import Ask, Observed


def comparable(ask: Ask, observed: Observed) -> Observed:
    """The observation without what is known to differ."""
    if observed.arrived is None and _is_grpc(ask):
        return replace(observed, status=0, headers=())
    if observed.arrived is not None:
        same = ("x-envoy-original-path", observed.arrived.path)
        headers = tuple(pair for pair in observed.arrived.headers if pair != same)
        return replace(observed, arrived=replace(observed.arrived, headers=headers))
    return observed


def _is_grpc(ask: Ask) -> bool:
    return any(name == "content-type" and value.startswith("application/grpc") for name, value in ask.headers)
