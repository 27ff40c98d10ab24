"""The stand-in for an endpoint: what attempts run on where a cluster has none and the caller needs none.

A guarded function is such a caller: its cluster may be there for its policies alone. One host serves every cluster,
because nothing is learnt about it: it has no address, is not balanced to, and is never ejected.
"""

from __future__ import annotations

from meshlib.balancing.base import Host
from meshlib.model.endpoint import Address, LbEndpoint, Locality
from meshlib.state.cells import EndpointState

STAND_IN = Host(LbEndpoint(Address("", 0)), EndpointState(""), "", Locality(), 0)
