"""The certificate that the webhook makes: shared, trusted before it is shown, renewed in time."""

from __future__ import annotations

import datetime
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509

from digestry.admission.certificate_authority import CertificateSet, authorities_of, names_of, renewed
from digestry.admission.certificate_files import ServerCertificate
from digestry.admission.certificate_keeper import CertificateKeeper
from digestry.admission.certificate_stores import DirectoryStore
from digestry.errors import InvalidConfiguration

NAMES = ("webhook.svc", "127.0.0.1")
LIFETIME = 90 * 86400.0
BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def leaf(found: CertificateSet) -> x509.Certificate:
    return x509.load_pem_x509_certificate(found.certificate)


def is_signed(found: CertificateSet) -> bool:
    """Whether an authority that is trusted has signed the certificate."""
    certificate = leaf(found)
    issuers = [one for one in authorities_of(found) if one.subject == certificate.issuer]
    for one in issuers:
        certificate.verify_directly_issued_by(one)
    return bool(issuers)


def test_over_years_there_is_always_a_valid_and_trusted_certificate() -> None:
    now, known = BEGIN, None
    shown: set[bytes] = set()
    authorities: set[bytes] = set()
    trusted_before: bytes = b""
    for _ in range(10 * 365 // 2):
        found = renewed(
            known, NAMES, LIFETIME, now, trusted=known is not None and known.authorities == trusted_before
        )
        trusted_before = b"" if known is None else known.authorities
        certificate = leaf(found)
        assert certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
        assert is_signed(found)
        assert len(authorities_of(found)) <= 2
        if known is not None and found.certificate != known.certificate:
            # What it was signed by is trusted since two days.
            assert found.authorities == known.authorities
        shown.add(found.certificate)
        authorities.add(authorities_of(found)[0].fingerprint(certificate.signature_hash_algorithm))  # type: ignore[arg-type]
        known = found
        now += datetime.timedelta(days=2)
    assert len(shown) > 50
    assert len(authorities) > 4


def test_other_names_get_another_certificate() -> None:
    first = renewed(None, NAMES, LIFETIME, BEGIN, trusted=False)
    assert names_of(leaf(first)) == set(NAMES)
    assert renewed(first, NAMES, LIFETIME, BEGIN, trusted=True) is first
    second = renewed(first, ("other.svc",), LIFETIME, BEGIN, trusted=True)
    assert names_of(leaf(second)) == {"other.svc"}
    assert second.authorities == first.authorities


def test_replicas_that_start_together_share_one(tmp_path: Path) -> None:
    used = [ServerCertificate() for _ in range(8)]
    keepers = [
        CertificateKeeper(DirectoryStore(tmp_path / "tls"), one, names=NAMES, lifetime=LIFETIME)
        for one in used
    ]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(CertificateKeeper.refresh, keepers))
    assert len({one.expires for one in used}) == 1
    assert (tmp_path / "tls" / "certificates.json").stat().st_mode & 0o077 == 0
    context = ssl.create_default_context(cafile=str(tmp_path / "tls" / "ca.crt"))
    assert len(context.get_ca_certs()) == 1


def test_a_new_authority_is_trusted_before_its_certificate_is_shown(tmp_path: Path) -> None:
    class Servers:
        """API servers, which trust what they are told."""

        authorities = b""

        def trust(self, authorities: bytes) -> bool:
            before, self.authorities = self.authorities, authorities
            return before == authorities

    store, servers, used = DirectoryStore(tmp_path), Servers(), ServerCertificate()
    clock = [0.0]
    keeper = CertificateKeeper(
        store,
        used,
        names=NAMES,
        lifetime=LIFETIME,
        trusted=servers,  # type: ignore[arg-type]
        clock=lambda: clock[0],
    )
    assert keeper.refresh()
    first, version = store.read()
    assert first is not None
    # An authority that is about to end: as if it had been made long ago.
    old = renewed(
        None,
        NAMES,
        LIFETIME,
        datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=700),
        trusted=False,
    )
    mixed = CertificateSet(old.authorities, old.authority_key, b"", b"")
    mixed = renewed_leaf(mixed)
    assert store.write(mixed, version)
    shown = []
    for _ in range(12):
        clock[0] += 15.1
        keeper.refresh()
        found, _ = store.read()
        assert found is not None
        shown.append(found)
        assert servers.authorities == found.authorities
        assert is_signed(found)
    assert shown[0].authorities != mixed.authorities
    assert mixed.authorities in shown[0].authorities
    assert shown[0].certificate == mixed.certificate
    assert shown[-1].certificate != mixed.certificate
    assert authorities_of(shown[-1])[0].subject == leaf(shown[-1]).issuer
    changed = next(number for number, one in enumerate(shown) if one.certificate != mixed.certificate)
    assert changed >= 3


def renewed_leaf(known: CertificateSet) -> CertificateSet:
    """A set with a certificate of today by the authority of ``known``."""
    from digestry.admission.certificate_authority import _with_certificate

    return _with_certificate(known, NAMES, LIFETIME, datetime.datetime.now(datetime.UTC))


def test_a_pair_that_does_not_belong_together_changes_nothing() -> None:
    first = renewed(None, NAMES, LIFETIME, datetime.datetime.now(datetime.UTC), trusted=False)
    second = renewed(None, NAMES, LIFETIME, datetime.datetime.now(datetime.UTC), trusted=False)
    used = ServerCertificate()
    assert used.use(first.certificate, first.key, "here")
    before = used.expires
    with pytest.raises(InvalidConfiguration, match="cannot be used"):
        used.use(second.certificate, first.key, "here")
    with pytest.raises(InvalidConfiguration, match="cannot be used"):
        used.use(b"nothing", first.key, "here")
    assert used.expires == before
    assert not used.use(first.certificate, first.key, "here")


def test_a_directory_that_was_spoilt_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "certificates.json").write_text("{}")
    with pytest.raises(InvalidConfiguration, match="cannot be read"):
        DirectoryStore(tmp_path).read()
