"""Sources of containers: one module for each kind of place that can be asked."""
