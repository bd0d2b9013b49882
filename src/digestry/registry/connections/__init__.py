"""The server's connections: the listening socket, limits, and the guard that enforces them."""
