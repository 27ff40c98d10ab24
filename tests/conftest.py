"""Parts and servers for every test: see tests/README.md."""

pytest_plugins = ["parts.plugin", "parts.fixtures", "parts.grpc_fixtures"]
