"""The client: transport, authentication, retries, and what one repository of a registry can do."""
