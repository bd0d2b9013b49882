"""Copies of images between registries, the local store, layouts, archives and engines."""
