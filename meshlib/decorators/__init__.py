"""Decorators: the mesh's policies on any function, as an adapter on the same call flow as the clients."""
