"""Where a gRPC call through meshlib differs from one through grpcio's own `xds:///` (1.85) on purpose: the mesh does
what Envoy does with the same configuration. Everything else that differs is a bug.

1. Endpoint weights count in every balancer, and a degraded endpoint takes what the healthy ones cannot; grpcio takes
   all endpoints it may use alike, and no degraded one.
2. A priority that is only partly healthy shares its load with the next (overprovisioning); grpcio stays with the first
   priority that has any endpoint connected.
3. Localities share by their weights only where the cluster says so (`locality_weighted_lb_config`); in grpcio always.
4. A call is balanced over what the control plane calls healthy. grpcio passes over endpoints it has no connection to;
   here a refused connection is an attempt that failed, to be retried by the route's policy and to be counted by outlier
   detection.
5. Of a repeated header one value that matches is enough; grpcio matches all values joined by commas.
6. `:path` and `grpc-timeout` match no header rule; in grpcio they do (gRFC A28 says they should not).
7. A route with a direct response or a redirect answers with its HTTP status in gRPC's words, 200 as UNKNOWN and 403 as
   PERMISSION_DENIED; grpcio says UNAVAILABLE.
8. `num_retries` is what the route says; grpcio makes at most five attempts.
9. `timeout` of a route, `per_try_timeout`, `retriable_status_codes` and the other words of `retry_on` hold; grpcio has
   `max_stream_duration` and five words. A stream of requests is bounded by `max_stream_duration` alone here too.
10. The first configuration being refused (NACK), a call waits for a better one until `fetch_timeout`; grpcio's fails at
    once.
11. `grpc_timeout_header_max` bounds the timeout of a call that has one, as in Envoy; one without has the route's
    `max_stream_duration`. In grpcio the former bounds every call. (Istio sends both alike.)
12. Balancers and filters grpcio does not know (LEAST_REQUEST, RANDOM, a local rate limit) make it refuse the whole
    resource; here they work, or are left out and reported.
13. The name of a header rule matches in any case; in grpcio a name with capitals is a header no call has.
14. `max_retries` of a cluster holds, three at once where nothing is said; grpcio knows `max_requests` alone.
15. What Envoy refuses is refused, and nothing else. grpcio takes a route without an action or cluster, an empty regex,
    an empty prefix of a header, a header rule without a name, a back-off that ends before it begins, a fraction without
    a value and a domain twice; and refuses a range that ends before it begins, a header rule of no kind, no retries
    (`num_retries` 0), `path_separated_prefix`, `connect_matcher`, an empty domain and a star within one.
16. `cluster_header` names the cluster; grpcio passes over such a route.
17. Health decides about priorities, as in Envoy, and connections only with `Mesh(failover_timeout=...)`; in grpcio
    always (gRFC A56, 10 seconds). What finds out is a call whose connection fails; in grpcio calls wait meanwhile.
18. An endpoint is one address: `additional_addresses` are not used (reported), and the addresses of a name are tried
    one after the other. grpcio races both (Happy Eyeballs, gRFC A61).
19. Faults are Envoy's: a call may ask for an abort by HTTP status (`x-envoy-fault-abort-request`), and for its share in
    `x-envoy-fault-abort-request-percentage` too, not only in gRFC A33's `x-envoy-fault-abort-percentage`; one that is
    aborted with HTTP status 200 ends as UNKNOWN, where grpcio aborts nothing. What is over `max_active_faults` is not
    aborted after a delay that was left out either; the count is a mesh's, in grpcio the whole process's.
"""
