"""Where balancing differs from Envoy's on purpose. Everything else that differs is a bug.

1. Where a priority has degraded endpoints and no healthy one, ring hash and Maglev use them. Envoy's tables never hold
   degraded endpoints: it answers 503 (`no healthy upstream`).
2. With `use_hostname_for_hashing` an endpoint without hostname is hashed by its address. Envoy hashes the empty name,
   which gives all such endpoints one place.
3. Of endpoints with an equal `hash_key` the one named first comes first in Maglev's table, so that every process makes
   the same one. In Envoy that is up to where they happen to be in memory.
4. Whether a subset is of a single host (`single_host_per_subset`) follows from the endpoints as they are now. Two
   selectors can make the same subset through `list_as_any`; in Envoy the one that made it first decides, also after
   that endpoint has left.
5. With `override_host` inside a subset, the endpoint that is asked for is looked for in the whole cluster (reported).
6. `pick_first` and `random_subsetting` work, as in gRPC; Envoy has neither and passes them over in a list.
7. The second draw of LEAST_REQUEST is never the endpoint of the first. Envoy may draw the same one twice, so that of
   ten endpoints one that hangs still gets a hundredth of the requests, which is their 99th percentile.
8. Where `error_utilization_penalty` of ClientSideWeightedRoundRobin is not set it is 1.0, as the API's documentation
   and gRPC (gRFC A58) have it. The code of Envoy 1.40 has 0: errors cost an endpoint nothing.
9. An address that a cluster has in two priorities is one endpoint, where it is named first: what is counted of it
   (requests, ejections) is of the address. Envoy has a host of that address in each priority of a STATIC cluster.
10. An AGGREGATE may have any balancer, which then has nothing to balance: gRPC refuses it CLUSTER_PROVIDED, and Envoy
    everything else. WrrLocality takes any child, as in gRPC; in Envoy ClientSideWeightedRoundRobin alone.
11. Weights that sum to more than 4294967295, of the endpoints of a locality or of the localities of a priority, are
    refused: the API forbids them. Envoy 1.40 takes them.
"""
