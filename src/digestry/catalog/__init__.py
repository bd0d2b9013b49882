"""The registry's knowledge of content: links, tags, the journal, uploads, leases, advisories.

The bytes themselves are in ``blobs``; a row here is what makes them visible.
"""
