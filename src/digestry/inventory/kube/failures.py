"""The causes of failed requests to a Kubernetes API server."""

from __future__ import annotations

from urllib3 import exceptions as http


def root_cause(error: BaseException) -> BaseException:
    """Return the exception that urllib3's exceptions wrap."""
    seen = 0
    while seen < 8:
        seen += 1
        inner = getattr(error, "reason", None)
        if isinstance(error, http.ProtocolError) and len(error.args) > 1:
            inner = error.args[1]
        if not isinstance(inner, BaseException):
            inner = None
        if inner is None and isinstance(error, http.SSLError | http.ProxyError | http.NewConnectionError):
            inner = next((value for value in error.args if isinstance(value, BaseException)), None)
            inner = inner or error.__cause__
        if inner is None:
            return error
        error = inner
    return error
