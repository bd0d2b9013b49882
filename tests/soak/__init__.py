"""Clients that push, pull and delete while collection and scrub run without a pause."""
