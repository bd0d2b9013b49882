"""Transparency logs in the formats of C2SP: trees, tiles, signed notes, checkpoints, cosignatures, proofs.

Values and computations only. What signs and serves the registry's own log is in ``catalog/translog`` and
``registry``; what verifies another registry's is the client's.
"""
