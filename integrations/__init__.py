"""Thin adapters to frameworks, shipped as ``meshlib.integrations``; each uses only meshlib's public names."""
