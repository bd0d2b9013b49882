"""The HTTP server: OCI distribution-spec 1.1 and what its drafts add, one module a resource."""
