"""Balancing: which endpoint of a cluster takes a request. Pure: an RNG is passed in, nothing here sleeps or connects.

`cluster.ClusterBalancer` is the door. It compiles a `view.View` of the endpoints that may be used now: subset
(`subset`), then priority (`priority`), then locality (`locality`), then a `base.Balancer` of the policy (`registry`).
"""
