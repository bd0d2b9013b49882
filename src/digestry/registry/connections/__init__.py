"""The connections of a server: the socket they come in by, what they may hold, and when they end."""
