"""Coordination of a registry's processes: the protocol, and its implementation by file locks."""
