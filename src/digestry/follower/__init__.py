"""A verified copy of another registry's log: kept on disk, compared with each checkpoint, and served."""
