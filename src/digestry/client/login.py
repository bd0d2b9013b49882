"""Logging in: the registry is asked whether it takes a user's password, and for a token to keep instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from digestry.client.auth import Authenticator, basic_header
from digestry.client.connection import Connection
from digestry.client.credentials import Credential, StaticCredentials
from digestry.client.options import ClientOptions
from digestry.client.transport import Call, Transport
from digestry.errors import InvalidConfiguration, RemoteError, Unauthorized

_REFUSED: Final = (
    "check the name and the password; an account with a second factor may need a token in place of a password"
)


@dataclass(frozen=True, slots=True)
class Login:
    """A login that a registry took. ``credential`` is what to keep: an identity token if the registry gives
    one, else the password. ``verified`` is False for a registry that did not require a login."""

    host: str
    credential: Credential
    verified: bool


def log_in(host: str, credential: Credential, options: ClientOptions, *, token: bool = True) -> Login:
    """Ask the registry ``host[:port]``, and the token server that it names, to take a name and a password.

    With ``token``, a token server is asked for an identity token, which can be kept in place of the password.
    ``options`` say how the registry is asked; logins that they name are not used.

    Raises :class:`~digestry.errors.Unauthorized` if they are refused,
    :class:`~digestry.errors.InvalidConfiguration` if there is none, or a name with a colon,
    :class:`~digestry.errors.RemoteError` if the token server is a host that may not have the password, and
    what :class:`~digestry.Registry` does.
    """
    if not credential.username or not (credential.password or credential.identity_token):
        raise InvalidConfiguration("a login needs a user name and a password")
    if ":" in credential.username:
        raise InvalidConfiguration("a user name cannot have a colon: what follows it would be the password")
    transport = Transport(options)
    authenticator = Authenticator(transport, StaticCredentials({host: credential}), offline=token)
    connection = Connection(options, transport=transport, authenticator=authenticator)
    try:
        question = Call("GET", f"{connection.base(host)}/v2/", registry=host)
        with connection.send(host, question, ()) as response:
            if response.status != 200:
                response.fail(f"log in to {host}")
            if response.remark:
                raise RemoteError(f"cannot log in to {host}: {response.remark}")
        verified = connection.is_authenticated(host)
        if not verified:  # some look at a login that they did not ask for
            with transport.send(question, authorization=basic_header(credential)) as response:
                if response.status != 200:
                    response.fail(f"log in to {host}")
        identity_token = authenticator.identity_token(host)
    except Unauthorized as error:
        raise Unauthorized(error.message, status=error.status, code=error.code, hint=_REFUSED) from error
    finally:
        connection.close()
    if identity_token:
        credential = Credential(credential.username, identity_token=identity_token)
    return Login(host, credential, verified)
