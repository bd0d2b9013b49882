"""The catalog in PostgreSQL: all that only this database needs."""
