"""Consul as a source: the catalog's health and the discovery chain, by blocking queries, into the model.

`settings` says where the agent is and how to speak to it; `names`, `query`, `blocking`, `health`, `chain_*` and
`catalog` decide (values in, values out); `http1`, `client`, `watches` and `runner` act, in one daemon thread.
"""

from meshlib.sources.consul.factory import consul_source
from meshlib.sources.consul.runner import ConsulStats
from meshlib.sources.consul.settings import ConsulSettings, load_settings
from meshlib.sources.consul.source import ConsulSource

__all__ = ["ConsulSettings", "ConsulSource", "ConsulStats", "consul_source", "load_settings"]
