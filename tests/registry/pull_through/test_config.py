"""``[mirror."HOST"]``: what it may say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from digestry.errors import InvalidConfiguration
from digestry.registry.config import RegistryConfig, load
from digestry.registry.pull_through.config import MirrorConfig
from digestry.registry.server import prepare
from digestry.upstream.ssrf_guard import parse_allowed_target


def mirrors(tmp_path: Path, text: str) -> tuple[MirrorConfig, ...]:
    file = tmp_path / "registry.toml"
    file.write_text(text)
    return load(file, {"root": tmp_path / "root"}).mirrors


def test_docker_hub_needs_no_key(tmp_path: Path) -> None:
    assert mirrors(tmp_path, '[mirror."docker.io"]') == (
        MirrorConfig("docker.io", "https://registry-1.docker.io", "docker.io"),
    )


def test_every_key(tmp_path: Path) -> None:
    text = """
        [mirror."quay.io"]
        url = "http://other.test:5000/"
        prefix = "red/hat"
        repository = ["team/**", "x"]
        default = true
        username = "bob"
        password-file = "secret"
        ca = "/etc/ca.pem"
        tag-ttl = "1min"
        stale = "2d"
        timeout = 3
        downloads = 2
        [mirror."ghcr.io"]
        stale = "off"
        [mirror."localhost:5001"]
        prefix = "local"
    """
    first, second, third = mirrors(tmp_path, text)
    assert first == MirrorConfig(
        "quay.io",
        "http://other.test:5000",
        "red/hat",
        patterns=("team/**", "x"),
        default=True,
        username="bob",
        password_file=tmp_path / "secret",
        ca=Path("/etc/ca.pem"),
        tag_ttl=60,
        stale=2 * 86400,
        timeout=3,
        downloads=2,
    )
    assert (second.url, second.stale) == ("https://ghcr.io", 0)
    assert (third.url, third.prefix) == ("https://localhost:5001", "local")


def test_names() -> None:
    hub = MirrorConfig("docker.io", "", "hub")
    other = MirrorConfig("quay.io", "", "quay.io", patterns=("a/*",))
    assert hub.local_name(hub.upstream_name("alpine")) == "hub/library/alpine"
    assert hub.local_name(hub.upstream_name("me/app")) == "hub/me/app"
    assert other.local_name(other.upstream_name("app")) == "quay.io/app"
    assert [other.fetches(name) for name in ("a/b", "a/b/c", "b/a")] == [True, False, False]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[mirror."docker.io"]\nurls = "x"', "unknown key"),
        ("mirror = 3", "a table for each registry"),
        ("[mirror]\nurl = 'https://x.test'", "a table for each registry"),
        ('[mirror."a/b"]', "names no registry"),
        ('[mirror."index.docker.io"]\n[mirror."docker.io"]\nprefix = "hub"', "the same registry"),
        ('[mirror."a.test"]\n[mirror."a.test:443"]\nprefix = "b"', "the same registry"),
        ("[mirror.quay.io]\ndefault = true", "in quotes"),
        ('[mirror."Quay.IO"]', "lower case: quay.io"),
        ('[mirror."localhost:5001"]', "cannot begin the name"),
        ('[mirror."a.test"]\nprefix = "Upper"', "cannot begin the name"),
        ('[mirror."a.test"]\nurl = "ftp://a.test"', "url: https://HOST"),
        ('[mirror."a.test"]\nurl = "https://a.test/Cache"', "lower-case"),
        ('[mirror."a.test"]\nurl = "https://a.test/a//b"', "no path to a registry's project"),
        ('[mirror."a.test"]\nurl = "https://a.test/a%2fb"', "no path to a registry's project"),
        ('[mirror."a.test"]\nrealm = "ftp://auth.test"', "realm: "),
        ('[mirror."a.test"]\nrealm = ["auth.test/token"]', "realm: "),
        ('[mirror."a.test"]\ninternal = "10.0.0.0/33"', "internal: "),
        ('[mirror."a.test"]\ninternal = [7]', "internal: "),
        ('[mirror."a.test"]\ninternal = "a.test:"', "internal: "),
        ('[mirror."a.test"]\ninternal = "a.test:99999"', "internal: "),
        ('[mirror."a.test"]\nrealm = "[::1"', "realm: "),
        ('[mirror."a.test"]\nrealm = "me@auth.test"', "realm: "),
        ('[mirror."a.test"]\nurl = "https://me:secret@a.test"', "url: https://HOST"),
        ('[mirror."a.test"]\nurl = "https://[::1"', "url: https://HOST"),
        ('[mirror."a.test"]\nurl = "https://a b.test"', "url: https://HOST"),
        ('[mirror."a.test"]\nurl = "https://a.test?x"', "no path to a registry's project"),
        ('[mirror."a.test"]\nusername = "me:secret"\npassword-file = "p"', "without a colon"),
        ('[mirror."a.test"]\nrepository = "A B"', "matches no name"),
        ('[mirror."a.test"]\nusername = "me"', "go together"),
        ('[mirror."a.test"]\nstale = "never"', "stale: "),
        ('[mirror."a.test"]\ntag-ttl = "off"', "tag-ttl: "),
        ('[mirror."a.test"]\ndefault = true\n[mirror."b.test"]\ndefault = true', "only one"),
        ('[mirror."a.test"]\nprefix = "x"\n[mirror."b.test"]\nprefix = "x"', "would share"),
        ('[mirror."a.test"]\nprefix = "x/y"\n[mirror."b.test"]\nprefix = "x"', "would share"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        mirrors(tmp_path, text)
    assert says in refused.value.message
    assert "registry.toml" in refused.value.message


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.0/8",
        "10.0.0.1",
        "::1",
        "[::1]",
        "[::1]:9000",
        "fd00::/8",
        "minio.corp",
        "MINIO.corp.:9000",
        "a-b_c",
    ],
)
def test_what_may_be_inside_is_understood_where_it_counts(tmp_path: Path, text: str) -> None:
    [found] = mirrors(tmp_path, f'[mirror."a.test"]\ninternal = "{text}"')
    assert len([parse_allowed_target(entry) for entry in found.internal]) == 1


@pytest.mark.parametrize(
    ("url", "address", "project"),
    [
        ("https://a.test", "https://a.test", ""),
        ("https://a.test/", "https://a.test", ""),
        ("https://a.test/v2/", "https://a.test", ""),
        ("https://a.test/hub-cache", "https://a.test", "hub-cache"),
        ("https://a.test:8443/v2/hub/cache/", "https://a.test:8443", "hub/cache"),
        ("http://a.test/artifactory/api/docker/Key/v2", "http://a.test/artifactory/api/docker/Key", ""),
        ("https://a.test/below/v2/hub", "https://a.test/below", "hub"),
    ],
)
def test_an_upstream_may_be_a_project_of_a_registrys(
    tmp_path: Path, url: str, address: str, project: str
) -> None:
    [found] = mirrors(tmp_path, f'[mirror."docker.io"]\nurl = "{url}"')
    assert (found.url, found.project) == (address, project)


@pytest.mark.parametrize("name", ["index.docker.io", "registry-1.docker.io", "docker.io"])
def test_docker_hub_has_several_names(tmp_path: Path, name: str) -> None:
    [found] = mirrors(tmp_path, f'[mirror."{name}"]')
    assert (found.host, found.prefix, found.url) == ("docker.io", "docker.io", "https://registry-1.docker.io")


def test_prefixes_that_only_begin_alike(tmp_path: Path) -> None:
    assert len(mirrors(tmp_path, '[mirror."a.test"]\nprefix = "x"\n[mirror."b.test"]\nprefix = "xy"')) == 2


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ('username = "me"\npassword-file = "none"', "No such file"),
        ('username = "me"\npassword-file = "bytes"', "not UTF-8"),
        ('ca = "none"', "No such file"),
        ('ca = "text"', "no certificate"),
    ],
)
def test_files_that_cannot_be_used_are_told_when_the_server_starts(
    tmp_path: Path, keys: str, says: str
) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "text").write_text("no certificate")
    found = mirrors(tmp_path, f'[mirror."a.test"]\n{keys}')
    with pytest.raises(InvalidConfiguration, match=says) as refused:
        prepare(RegistryConfig(tmp_path / "root", mirrors=found))
    assert '[mirror."a.test"]' in refused.value.message
