"""The way to a Kubernetes API server: configuration, credentials, lists and watches."""
