"""Move a registry to other stores (docs/scale.md)."""
