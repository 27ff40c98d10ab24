"""The canary story on a real Consul: services register themselves, and a service-splitter shifts the weights.

    make demo-consul

What is its own here: `fleet.py` starts the agent and the services, `services.py` is a service that registers itself,
`entries.py` writes Consul's config entries, `acts.py` is what can only happen with a registry. All the rest, and half
of the story, is `examples/demo`; only that calls are plain HTTP here.
"""
