"""Formats of documents that list containers or images: one module for each family."""
