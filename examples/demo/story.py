"""The acts in their order."""

from __future__ import annotations

from examples.demo import acts, acts_mtls

STORY: tuple[tuple[str, acts.Act], ...] = (
    ("everything on stable", acts.warm_up),
    ("who is who", acts_mtls.who_is_who),
    ("the canary takes 10, 50, 100 %", acts.canary),
    ("a flaky instance joins", acts.flaky_joins),
    ("a rate limit comes and goes", acts.rate_limit),
    ("an instance dies", acts.kill_instance),
    ("a gRPC instance dies", lambda stage: acts.kill_instance(stage, "receipts-1", "a gRPC instance")),
    ("another authority, other certificates", acts_mtls.change_authority),
    ("the control plane dies", acts.stop_control_plane),
    ("somebody saves a typo", acts.bad_edit),
)
