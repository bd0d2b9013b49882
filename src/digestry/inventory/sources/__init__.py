"""Sources of containers: one module for each kind."""
