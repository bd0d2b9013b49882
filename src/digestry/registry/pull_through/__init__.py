"""The pull-through cache in front of other registries (docs/mirror.md).

Fetched content is in ordinary repositories, below the mirror's prefix. Requests to another registry go
through a protocol: see :mod:`.upstream`.
"""
