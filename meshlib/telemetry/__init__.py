"""Telemetry: what calls say about themselves, and the identifiers that travel with them."""
