"""The local image store, an OCI image layout: list, tag, remove, pack, unpack, pull, push."""
