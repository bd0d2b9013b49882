"""Take and restore backups of a registry, also while it serves (docs/backup.md)."""
