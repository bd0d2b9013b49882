"""Advisories about images: read from attachments in any format, and published as OpenVEX."""
