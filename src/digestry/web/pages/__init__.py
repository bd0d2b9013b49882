"""The pages, one module each: it reads the catalog, makes a view of what it read, and names a template."""
