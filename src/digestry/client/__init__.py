"""The client of registries: connections and logins at the ground, repositories and sessions above them."""
