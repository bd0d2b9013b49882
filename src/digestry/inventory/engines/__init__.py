"""The ways to container engines and runtimes: addresses, connections, HTTP and gRPC."""
