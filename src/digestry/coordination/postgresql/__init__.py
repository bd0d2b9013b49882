"""Coordination of a registry's nodes: locks and keys in rows of a PostgreSQL database."""
