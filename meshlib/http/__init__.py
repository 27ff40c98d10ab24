"""HTTP: transports for httpx and httpx2, the wire under them, and the server middleware."""
