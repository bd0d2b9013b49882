"""A blob store over the S3 API."""
