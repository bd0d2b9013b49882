"""The catalog in SQLite: all that only this database needs."""
