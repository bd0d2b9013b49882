"""Other registries, as a registry that keeps copies of what they have asks them."""
