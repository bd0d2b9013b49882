"""What the registry tells of itself: metrics, health, its log, and the audit log of every write."""
