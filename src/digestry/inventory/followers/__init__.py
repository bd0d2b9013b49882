"""Followers of sources: what starts and stops, as each engine's events tell it."""
