"""Directories like docker's ``certs.d``: skopeo and digestry use them alike."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.client.configuration.certificates import HostCertificates, host_certificates
from digestry.client.configuration.files import configuration_files
from digestry.client.configuration.rules import HostRule, RegistryRules
from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.errors import DigestryError, InvalidConfiguration
from digestry.model import media_types
from digestry.model.reference import Reference
from tests.certificates import Certificates
from tests.client.liar import Liar, Reply, lying
from tests.support import PATIENCE, program

_INDEX = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'


@pytest.fixture
def wary(pki: Certificates) -> Iterator[Liar]:
    """A registry that answers only who shows a certificate of its authority."""
    reply = Reply(200, _INDEX, {"Content-Type": media_types.OCI_INDEX})
    with lying(lambda _: reply, tls=pki.context(wants_client=True)) as server:
        yield server


@pytest.mark.peer("skopeo")
@pytest.mark.parametrize(
    ("names", "works"),
    [
        (("ca.crt", "a.cert", "a.key"), True),
        (("ca.crt",), False),
        (("a.cert", "a.key"), False),
        (("ca.pem", "a.cert", "a.key"), False),
        (("ca.crt", "a.cert"), False),
        (("ca.crt", "a.key"), False),
        (("ca.crt", "a.cert", "b.key"), False),
    ],
)
def test_skopeo_is_let_in_with_the_same_files(
    wary: Liar, pki: Certificates, tmp_path: Path, names: tuple[str, ...], works: bool
) -> None:
    folder = tmp_path / ".config/containers/certs.d" / wary.host
    folder.mkdir(parents=True)
    certificate, key = pki.client
    for name in names:
        source = pki.authority if name.startswith("ca") else certificate if name.endswith("cert") else key
        (folder / name).write_bytes(source.read_bytes())
    environment = {"HOME": str(tmp_path)}
    done = subprocess.run(
        [program("skopeo"), "inspect", "--raw", f"docker://{wary.host}/a:1"],
        env=os.environ | environment,
        capture_output=True,
        check=False,
    )
    assert (done.returncode == 0) is works, done.stderr
    options = ClientOptions(
        timeout=PATIENCE,
        retries=0,
        certificate_directories=configuration_files(environment).certificates,
        # This machine may have any certificate, unless a rule says otherwise.
        registries=RegistryRules(((HostRule("127.0.0.1", "a test", skip_verify=False),),)),
    )
    with Session(options) as session:
        repository = session.repository(Reference(wary.host, "a"))
        if works:
            assert repository.pull_manifest("1").raw == _INDEX
        else:
            with pytest.raises(DigestryError):
                repository.pull_manifest("1")


def test_the_first_directory_with_a_folder_counts(tmp_path: Path) -> None:
    directories = [tmp_path / name for name in ("absent", "first", "second")]
    for directory, name in zip(directories[1:], ("a.crt", "b.crt"), strict=True):
        (directory / "reg.example:5000").mkdir(parents=True)
        (directory / "reg.example:5000" / name).touch()
    found = host_certificates(directories, "reg.example:5000")
    folder = directories[1] / "reg.example:5000"
    assert found == HostCertificates(folder, (folder / "a.crt",))
    assert host_certificates(directories, "reg.example") == HostCertificates()


@pytest.mark.parametrize("host", ["..", ".", "", "a/../../etc", "a\0b"])
def test_a_host_leads_out_of_no_directory(tmp_path: Path, host: str) -> None:
    (tmp_path / "certs.d").mkdir()
    (tmp_path / "ca.crt").touch()
    assert host_certificates([tmp_path / "certs.d"], host) == HostCertificates()


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    loop = tmp_path / "reg.example"
    loop.symlink_to(loop)
    with pytest.raises(InvalidConfiguration, match="cannot read the certificates for reg"):
        host_certificates([tmp_path], "reg.example")
