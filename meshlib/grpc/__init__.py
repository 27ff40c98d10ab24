"""gRPC: channels for grpcio and grpc.aio whose calls go through the mesh."""
