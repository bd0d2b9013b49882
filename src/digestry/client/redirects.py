"""Where a response sends a request on to, and where it must not."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from digestry.client.options import ClientOptions, is_inside
from digestry.client.token_servers import parts_of
from digestry.errors import ProtocolViolation
from digestry.model.digest import shown


def redirect_target(options: ClientOptions, url: str, location: str) -> str:
    """Return the target of a ``Location`` in the response to ``url``.

    Raises :class:`ProtocolViolation` if that is not a web address, or goes from TLS to plain HTTP.
    """
    host = urlsplit(url).netloc
    try:
        target = urljoin(url, location)
    except ValueError as error:
        raise ProtocolViolation(
            f"{host} sends to {shown(location.partition('?')[0])}, which is not an address"
        ) from error
    parts = parts_of(target)
    if parts is None:
        raise ProtocolViolation(
            f"{host} sends to {shown(location.partition('?')[0])}, which is not a web address"
        )
    inside = is_inside(parts.netloc) and not is_inside(host)
    if options.is_insecure(parts.netloc):
        return target
    if inside:
        raise ProtocolViolation(f"{host} sends to this machine itself, at {shown(parts.netloc)}")
    if parts.scheme == "http" and not (is_inside(parts.netloc) or urlsplit(url).scheme == "http"):
        raise ProtocolViolation(
            f"{host} sends from TLS to plain HTTP at {shown(parts.netloc)}",
            hint="a registry behind a TLS proxy must be told its own address (X-Forwarded-Proto)",
        )
    return target
