"""Real programs written in Go, each a module of its own that pins what it is built from."""
