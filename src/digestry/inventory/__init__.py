"""Where containers are seen: sources ask engines and clusters, formats read what they answer."""
