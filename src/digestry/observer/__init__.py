"""The observer: asks other registries where their tags point, and records what it finds (docs/observe.md)."""
