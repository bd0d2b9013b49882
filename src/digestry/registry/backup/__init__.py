"""Backups of a registry, also while it serves, and their restoration (docs/backup.md)."""
