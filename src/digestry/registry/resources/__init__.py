"""The handlers of requests: one module for each resource of the API."""
