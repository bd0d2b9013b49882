"""A server of plain HTTP/1.1 for one ASGI application, on an event loop; the kernel sends files."""
