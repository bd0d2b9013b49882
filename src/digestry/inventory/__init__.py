"""The inventory of containers: sources ask engines and clusters, formats decode their answers."""
