"""The pages beside the API: repositories, tags and images, rendered on the server for people."""
