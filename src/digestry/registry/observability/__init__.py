"""Metrics, health checks, the server log, and the audit log of every write."""
