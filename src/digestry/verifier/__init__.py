"""The client's side of transparency logs: what a log says, verified, and what was seen of it before."""
