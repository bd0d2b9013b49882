"""The registry's journal as a transparency log: its leaves, checkpoints and keys in the catalog."""
