"""Requests to an upstream registry, made on behalf of a registry that caches its content."""
