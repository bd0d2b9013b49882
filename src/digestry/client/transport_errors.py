"""The mapping of the transport's exceptions to :class:`~digestry.errors.Unreachable`."""

from __future__ import annotations

import http.client
import socket
import ssl

from digestry.errors import Unreachable


class ConnectFailed(Exception):
    """No connection to the other side could be opened. Its cause says why."""


class ProxyFailed(Exception):
    """A proxy cannot be reached, or refuses. Its cause, if it has one, says why."""


class LeadsInside(Exception):
    """A registry elsewhere leads to an address of this machine or of its link, which it names."""


class CertificateChanged(OSError):
    """The other side shows another certificate than before."""


FAILURES = (ConnectFailed, LeadsInside, ProxyFailed, http.client.HTTPException, OSError)
"""The exceptions of a request that did not complete."""


def root_cause(error: BaseException) -> BaseException:
    """Return why a request failed."""
    if isinstance(error, ConnectFailed) and error.__cause__ is not None:
        return error.__cause__
    return error


def is_not_tls(error: BaseException) -> bool:
    """Return whether the other side answered a TLS greeting with something else, such as plain HTTP."""
    cause = root_cause(error)
    return (
        isinstance(cause, ssl.SSLError)
        and not isinstance(cause, ssl.SSLCertVerificationError)
        and not is_refusal(cause)
    )


def is_refusal(error: ssl.SSLError) -> bool:
    """Return whether it is a TLS alert, such as that another client certificate is required."""
    return "ALERT" in (error.reason or "")


def is_not_http(error: BaseException) -> bool:
    """Return whether the other side did not answer a request in HTTP."""
    return isinstance(error, http.client.HTTPException | OSError) and not isinstance(
        error, TimeoutError | CertificateChanged | ssl.SSLError
    )


def broke_off(error: Unreachable) -> bool:
    """Return whether the other side closed the connection, as it does with one that was idle too long."""
    if error.__cause__ is None:
        return False
    # http.client's RemoteDisconnected is a ConnectionResetError.
    return isinstance(
        root_cause(error.__cause__),
        ConnectionResetError | ConnectionAbortedError | BrokenPipeError | ssl.SSLEOFError,
    )


def unreachable(host: str, error: BaseException) -> Unreachable:
    """Return the error that ``error`` means for a request to ``host``."""
    cause = root_cause(error)
    hint = ""
    if isinstance(cause, CertificateChanged):
        reason = "its certificate has changed since the first request"
    elif isinstance(cause, ssl.SSLCertVerificationError):
        reason = f"its certificate cannot be trusted ({cause.verify_message})"
        hint = (
            f"name the registry's CA: digestry config set --registry {host} ca FILE; or, if you accept the "
            f"risk: digestry config set insecure-registries {host}"
        )
    elif isinstance(cause, ssl.SSLError) and is_refusal(cause):
        said = (cause.reason or "").partition("ALERT_")[2].lower().replace("_", " ")
        reason = f"it refuses the TLS connection ({said})"
        hint = (
            f"if it requires a client certificate, put one in client-cert and client-key of "
            f'[registries."{host}"] (docs/configuration.md)'
        )
    elif isinstance(cause, ssl.SSLError):
        reason = "it does not speak TLS"
        hint = (
            f"if it speaks plain HTTP and you accept the risk: digestry config set insecure-registries {host}"
        )
    elif isinstance(cause, socket.gaierror):
        reason = "there is no such host"
        hint = "check the name for a typo"
    elif isinstance(cause, TimeoutError):
        reason = "it does not answer in time"
    elif isinstance(cause, ConnectionRefusedError):
        reason = "nothing listens there (connection refused)"
        hint = "check that the registry runs, and on which port"
    elif isinstance(cause, ProxyFailed):
        reason = str(cause)
        hint = "check HTTPS_PROXY and NO_PROXY"
    elif isinstance(cause, OSError) and cause.strerror:
        reason = cause.strerror.lower()
    elif isinstance(cause, http.client.IncompleteRead):
        reason = "the connection broke before the end of its answer"
    else:
        reason = f"the connection broke ({str(cause) or type(cause).__name__})"
    return Unreachable(f"cannot reach {host}: {reason}", hint=hint)
