"""The fleet in the server: it judges what agents reported, by the audit, over the registry's own content."""
