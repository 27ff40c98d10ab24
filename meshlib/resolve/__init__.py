"""The names of DNS clusters: asked for on threads of their own, and put into snapshots as addresses."""
