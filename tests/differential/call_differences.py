"""Where a call through meshlib differs from a call through Envoy on purpose; routing's own are in
`routing_differences`. Everything else that differs is a bug.

1. Where Envoy answers a failure with a response of its own (503 `no healthy upstream`, 504 `upstream request timeout`),
   meshlib raises, with the same flag. A response an upstream gave is a response in both, also after retries.
2. `max_stream_duration` ends a call without a flag in Envoy, as UT here; both are 504 and neither is retried.
3. The stream's idle timeout runs through all attempts in Envoy, because it watches the caller's stream; here each
   attempt has its own. So retries after a silence shorter than the limit may go on longer here. Not generated.
4. `x-envoy-expected-rq-timeout-ms` tells the upstream of `max_stream_duration` too, where that is the shorter limit:
   it is when the call ends.
5. Envoy counts a stream's idle timeout against nobody; here it counts as the endpoint's fault (outlier detection,
   circuit breaker), for it is the endpoint that was silent.
6. An idempotent request whose kept-alive connection breaks before a byte of the response came is sent once more on a
   fresh connection, as HTTP clients do (RFC 9112 section 9.3.1), whatever the retry policy says and with the same
   attempt number. Envoy leaves it to the retry policy.
7. A response cut short by a reset of its connection (RST) is UC here, UPE in Envoy. Cut short by an orderly close it is
   UPE in both.
8. An ejection takes effect with the next pick; in Envoy up to `update_merge_window` (a second) later.
9. A sidecar sends what it was given over the cluster's transport, plain text included. Here an `https` URL to a cluster
   without TLS is sent over TLS, verified against the system's authorities and the URL's host. Not generated.
   So is a request that an internal redirect leads to `https`.
10. A copy (request mirroring) has no `x-envoy-internal` and no `x-forwarded-for`: they are a proxy's to write, and
    there is none. A copy of a request without a timeout may take 15 seconds, and is told so; in Envoy it may take for
    ever.
11. A call that is answered well after a slow attempt could not be hedged (no retries left, no budget) has no flag here;
    in Envoy it keeps URX or UO.
12. Requests that `retriable_request_headers` does not permit to be retried are not hedged either; Envoy hedges them.
    Where a hedge finds no healthy endpoint the other attempts go on; in Envoy the call ends (UH). Not generated.
13. A retry whose back-off would end after the call's deadline, be it as long as a response asked for, is not waited
    for: the response at hand is the answer. In Envoy the call waits for its timeout, and ends as UT.
14. A body is kept for retries as long as the caller keeps it, unless `request_body_buffer_limit` or
    `per_request_buffer_limit_bytes` says how much; Envoy has a limit of its own (a connection's buffer, 1 MiB). The
    limit is held against `content-length`; gRPC streams have gRPC's own (256 KiB).
15. `x-envoy-*` headers that ask for retries are those of the caller; those that a route's header mutations add are not
    read, as the ones for timeouts are not in Envoy either.
16. The shares of a request's mirror policies see one sample, as in Envoy; it is not the one that the route's
    `runtime_fraction` saw. In Envoy it is: behind a route of 10 % a share of 10 % copies every request. Not generated.
17. A request whose cluster does not exist is refused (NC) before the filters of its route see it; in Envoy the router
    refuses it, so that a fault or a limit comes first. Not generated.
18. Of faults there is one count in a mesh, for `max_active_faults` and the statistics; in Envoy one for each
    `stat_prefix` of a connection manager. gRPC calls have no response rate limit (gRFC A33).
19. Outlier detection lets an endpoint back when its time is over, Envoy at the end of the interval after that. One
    endpoint that two detectors find in the same interval is ejected once; in Envoy 1.40 it takes up two places. A
    time-out that is answered with 204 is told to it as a time-out; in Envoy as a 204.
"""
