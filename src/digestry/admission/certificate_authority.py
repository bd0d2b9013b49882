"""The webhook's own authority and its certificate: made, and made anew before they expire.

The authority's certificate is what API servers trust (``caBundle``). A new authority is trusted for a while,
beside the one before it, and then shows a certificate of its own: so no API server meets one that it does not
trust yet.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from digestry.errors import InvalidConfiguration

AUTHORITY_LIVES: Final = 10
"""How many times as long as a certificate its authority lives."""

_EARLY: Final = 1 / 3
"""The part of a lifetime that is left when something is made anew."""
_LATEST: Final = 1 / 10
"""The part that is left when a certificate is made anew even by an authority that may not be trusted yet."""
_BEFORE: Final = datetime.timedelta(minutes=5)  # clocks differ


@dataclass(frozen=True, slots=True)
class CertificateSet:
    """The authorities that are trusted, the newest first, the newest one's key, and the webhook's certificate
    with its key; all PEM."""

    authorities: bytes
    authority_key: bytes = field(repr=False)
    certificate: bytes
    key: bytes = field(repr=False)


def renewed(
    known: CertificateSet | None,
    names: Sequence[str],
    lifetime: float,
    now: datetime.datetime,
    *,
    trusted: bool,
) -> CertificateSet:
    """Return the set to use from now on: ``known`` itself if nothing in it has to be made anew.

    ``lifetime`` is in seconds, of a certificate. ``trusted`` is whether the newest authority has been trusted
    by API servers for long enough. Raises :class:`InvalidConfiguration` if ``known`` cannot be read.
    """
    if known is None:
        return _with_certificate(_with_authority(None, lifetime, now), names, lifetime, now)
    newest, *others = authorities_of(known)
    if _is_ending(newest, now, _EARLY * AUTHORITY_LIVES * lifetime):
        left = [one for one in (newest, *others) if one.not_valid_after_utc > now]
        return _with_authority(replace(known, authorities=_pem(left)), lifetime, now)
    leaf = _parsed(known.certificate)[0]
    of_newest = leaf.issuer == newest.subject
    if not of_newest and (trusted or _is_ending(leaf, now, _LATEST * lifetime)):
        return _with_certificate(known, names, lifetime, now)
    if of_newest and (_is_ending(leaf, now, _EARLY * lifetime) or names_of(leaf) != frozenset(names)):
        return _with_certificate(known, names, lifetime, now)
    return known


def authorities_of(known: CertificateSet) -> list[x509.Certificate]:
    """Return the trusted authorities, the newest first. Raises :class:`InvalidConfiguration`."""
    return _parsed(known.authorities)


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """Return the names and addresses that a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = (str(one) for one in found.get_values_for_type(x509.IPAddress))
    return frozenset((*found.get_values_for_type(x509.DNSName), *addresses))


def _with_authority(known: CertificateSet | None, lifetime: float, now: datetime.datetime) -> CertificateSet:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # A name of its own, so that a certificate's issuer tells which authority signed it.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"digestry admission {serial:x}"[:64])])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + datetime.timedelta(seconds=AUTHORITY_LIVES * lifetime))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    before = b"" if known is None else known.authorities
    return CertificateSet(
        _pem([certificate]) + before,
        _key_pem(key),
        b"" if known is None else known.certificate,
        b"" if known is None else known.key,
    )


def _with_certificate(
    known: CertificateSet, names: Sequence[str], lifetime: float, now: datetime.datetime
) -> CertificateSet:
    authority = authorities_of(known)[0]
    try:
        signer = serialization.load_pem_private_key(known.authority_key, None)
    except (ValueError, TypeError) as error:
        raise InvalidConfiguration("the key of the webhook's authority cannot be read") from error
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise InvalidConfiguration("the key of the webhook's authority is of another kind than it makes")
    key = ec.generate_private_key(ec.SECP256R1())
    ends = min(now + datetime.timedelta(seconds=lifetime), authority.not_valid_after_utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    return replace(known, certificate=_pem([certificate]), key=_key_pem(key))


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _is_ending(certificate: x509.Certificate, now: datetime.datetime, seconds: float) -> bool:
    return (certificate.not_valid_after_utc - now).total_seconds() < seconds


def _parsed(content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise InvalidConfiguration(
            "a certificate that the webhook made cannot be read",
            hint="remove the Secret, or the directory, and the webhook makes it anew",
        ) from error


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
