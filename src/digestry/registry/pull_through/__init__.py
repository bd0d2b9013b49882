"""The pull-through cache in front of other registries (docs/mirror.md).

What is fetched lives in ordinary repositories, below the mirror's prefix. How another registry is
asked is not known here, but through a protocol: see :mod:`.upstream`.
"""
