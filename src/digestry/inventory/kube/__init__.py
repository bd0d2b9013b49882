"""A client for the Kubernetes API server: configuration, credentials, lists and watches."""
