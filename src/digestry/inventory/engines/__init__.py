"""Connections to container engines and runtimes: addresses, HTTP, gRPC."""
