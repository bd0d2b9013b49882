"""Tests of several nodes on one PostgreSQL and one S3 store."""
