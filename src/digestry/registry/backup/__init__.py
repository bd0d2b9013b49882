"""Backups of a registry that may be served meanwhile, and their restoration (docs/backup.md)."""
