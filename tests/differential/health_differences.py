"""Where health checks of a mesh differ from Envoy's on purpose. Everything else that differs is a bug.

1. A cluster that has just come serves at once: its first endpoints count as healthy until their first check has an
   answer (`wait_ready` waits for that). Envoy does not use the cluster before.
2. A request on a kept connection that is closed before a byte of the response came is sent again on a new one. Envoy
   calls that a failure, so that servers that close idle connections about as often as they are checked seem ill.
3. A TCP connection that is kept for the next check may be closed meanwhile: that check makes another. In Envoy a close
   that it did not expect is a failure, right then.
4. `send` of a TCP check may be `binary`; Envoy sends nothing then.
5. `x-envoy-immediate-health-check-fail` on a retriable status that does not take the endpoint out: the mark goes with
   the next pass. In Envoy it stays until the endpoint has failed and passed.
6. A check's name is `meshlib/HC` (`user-agent`); gRPC's is grpcio's own.
7. At most 256 checks are in flight at once, and the timeout of a check begins with its turn. Envoy has no bound.
8. A gRPC check needs no `http2_protocol_options` of its cluster, which Envoy requires.
"""
