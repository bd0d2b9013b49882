"""The grammar, with the cases that the distribution project's ``reference`` package decides."""

from __future__ import annotations

import copy
import pickle

import pytest

from digestry.errors import InvalidReference
from digestry.model.digest import Digest
from digestry.model.reference import (
    Reference,
    check_host,
    check_repository,
    check_tag,
)

DIGEST = Digest.of(b"an image")
SHA512 = Digest.of(b"an image", "sha512")
HEX = "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a"


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag", "digest"),
    [
        ("golftrack", "docker.io", "library/golftrack", None, None),
        ("golftrack:1.5", "docker.io", "library/golftrack", "1.5", None),
        (f"golftrack@{DIGEST}", "docker.io", "library/golftrack", None, DIGEST),
        (f"golftrack@{SHA512}", "docker.io", "library/golftrack", None, SHA512),
        (f"golftrack:1.5@{DIGEST}", "docker.io", "library/golftrack", "1.5", DIGEST),
        ("team/golftrack", "docker.io", "team/golftrack", None, None),
        ("docker.io/golftrack", "docker.io", "library/golftrack", None, None),
        ("index.docker.io/golftrack", "docker.io", "library/golftrack", None, None),
        ("index.docker.io/team/golftrack:1", "docker.io", "team/golftrack", "1", None),
        # A first part is a host if it has a dot, a colon or an upper-case letter, or is localhost.
        ("localhost/a", "localhost", "a", None, None),
        ("localhost:5000/a", "localhost:5000", "a", None, None),
        ("registry:5000/a/b:t", "registry:5000", "a/b", "t", None),
        ("example.com/a", "example.com", "a", None, None),
        ("Registry/a", "Registry", "a", None, None),
        ("LOCALHOST/a", "LOCALHOST", "a", None, None),
        ("registry/a", "docker.io", "registry/a", None, None),
        ("xn--n3h.com/a:xn--n3h.com", "xn--n3h.com", "a", "xn--n3h.com", None),
        ("192.168.0.1:8/a", "192.168.0.1:8", "a", None, None),
        ("a:65535/b", "a:65535", "b", None, None),
        # Without a slash, it is a name and a tag, whatever it looks like.
        ("example.com:5000", "docker.io", "library/example.com", "5000", None),
        ("localhost", "docker.io", "library/localhost", None, None),
        ("192.168.1.1", "docker.io", "library/192.168.1.1", None, None),
        ("foo_bar.com:8080", "docker.io", "library/foo_bar.com", "8080", None),
        # IPv6
        ("[::1]/a", "[::1]", "a", None, None),
        ("[::1]:5000/a", "[::1]:5000", "a", None, None),
        (f"[2001:db8::1]:5000/a/b:t@{DIGEST}", "[2001:db8::1]:5000", "a/b", "t", DIGEST),
        ("[FC00:1:2:3:4:5:6:7]:5000/a", "[FC00:1:2:3:4:5:6:7]:5000", "a", None, None),
        # separators inside a part
        ("a.b/c_d/e__f/g-h/i---j", "a.b", "c_d/e__f/g-h/i---j", None, None),
        # 64 hex digits are refused only where they would be taken for an image ID.
        (f"docker.io/{HEX}", "docker.io", f"library/{HEX}", None, None),
        (f"library/{HEX}", "docker.io", f"library/{HEX}", None, None),
        (f"{HEX}:1", "docker.io", f"library/{HEX}", "1", None),
        (HEX[:-1] + "g", "docker.io", "library/" + HEX[:-1] + "g", None, None),
        ("sha256", "docker.io", "library/sha256", None, None),
        (f"localhost/sha256:{HEX}", "localhost", "sha256", HEX, None),
        # the limits
        ("x/" + "a" * 253, "docker.io", "x/" + "a" * 253, None, None),
        ("a" * 247, "docker.io", "library/" + "a" * 247, None, None),
        ("example.com/" + "a" * 255, "example.com", "a" * 255, None, None),
        ("a.b/" + "a/" * 127 + "a:t", "a.b", "a/" * 127 + "a", "t", None),
        ("a:" + "T" * 128, "docker.io", "library/a", "T" * 128, None),
        ("a:_.-", "docker.io", "library/a", "_.-", None),
    ],
)
def test_parse(text: str, host: str, repository: str, tag: str | None, digest: Digest | None) -> None:
    reference = Reference.parse(text)
    assert (reference.host, reference.repository) == (host, repository)
    assert (reference.tag, reference.digest) == (tag, digest)
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the image name is empty"),
        (":justtag", "name"),
        (f"@{DIGEST}", "name"),
        ("docker.io/", "the repository name is empty"),
        ("/a", "'/a' is not valid"),
        ("a/", "'a/' is not valid"),
        ("a//b", "'a//b' is not valid"),
        ("Golftrack", "must be lower-case"),
        ("team/Golftrack", "must be lower-case"),
        ("test:5000/Team/golftrack", "must be lower-case"),
        ("a___b", "not valid"),
        ("a..b", "not valid"),
        ("a._b", "not valid"),
        ("a-.b", "not valid"),
        ("-a/b", "not valid"),
        ("a-/b", "not valid"),
        ("_a/_b", "not valid"),
        ("aa/asdf$$^/aa", "not valid"),
        ("a b", "not valid"),
        ("a\n", "not valid"),
        ("a:", "tag '' is not valid"),
        ("a:.t", "tag '.t' is not valid"),
        ("a:-t", "tag '-t' is not valid"),
        ("a:1:2", "tag '1:2' is not valid"),
        ("a:t\n", r"tag 't\n' is not valid"),
        ("a:" + "t" * 129, "longer than 128 characters"),
        ("a" * 248, "longer than 255 characters"),
        ("example.com/" + "a" * 256, "longer than 255 characters"),
        ("a@", "has no algorithm"),
        ("a@sha256:" + "a" * 34, "64 hex digits"),
        ("a@sha256:" + "A" * 64, "lower-case hex"),
        ("a@md5:" + "a" * 32, "'md5' is not supported"),
        (f"a@{DIGEST}@{DIGEST}", "has 136"),
        (f"a@{DIGEST}:tag", "has 68"),
        (str(DIGEST), "is a digest, not an image name"),
        ("sha256:abc", "is a digest, not an image name"),
        (str(SHA512), "is a digest, not an image name"),
        (HEX, "64 hex digits"),
        ("a..b/c", "registry host 'a..b' is not valid"),
        ("-a.b/c", "registry host '-a.b' is not valid"),
        ("a_b.c/d", "registry host 'a_b.c' is not valid"),
        ("a.b./c", "registry host 'a.b.' is not valid"),
        ("a:/b", "registry host 'a:' is not valid"),
        ("a:http/b", "registry host 'a:http' is not valid"),
        ("a:0/b", "port out of range"),
        ("a:65536/b", "port out of range"),
        ("https://example.com/a", "registry host 'https:' is not valid"),
        ("[::1]", "not valid"),
        ("[::1]:5000", "not valid"),
        ("[::1]a/b", "not valid"),
        ("fc00::1:5000/a", "not valid"),
        ("[fe80::1%eth0]:5000/a", "not valid"),
        ("[2001:db8:3:4::192.0.2.33]:5000/a", "not valid"),
        ("\N{LATIN SMALL LETTER LONG S}/a", "not valid"),
        ("\N{KELVIN SIGN}/a", "not valid"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\0b", r"a\x00b"),
        ("\ud800", r"\ud800"),
    ],
)
def test_a_bad_name_is_refused_by_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(InvalidReference) as raised:
        Reference.parse(text)
    assert complaint in raised.value.message
    assert raised.value.message.isprintable()


@pytest.mark.parametrize("scheme", ["docker", "https"])
def test_an_address_given_as_a_name_comes_with_the_way_to_write_it(scheme: str) -> None:
    with pytest.raises(InvalidReference) as raised:
        Reference.parse(f"{scheme}://example.com/team/app:1")
    assert raised.value.hint == f"leave out {scheme}://, and write example.com/team/app:1"


def test_a_digest_given_as_a_name_comes_with_the_way_to_write_it() -> None:
    with pytest.raises(InvalidReference) as raised:
        Reference.parse(str(DIGEST))
    assert raised.value.hint.endswith("@sha256:<64 hex digits>")
    with pytest.raises(InvalidReference) as raised:
        Reference.parse(HEX)
    assert raised.value.hint.endswith(f"@sha256:{HEX}")


@pytest.mark.parametrize("value", [None, 5, b"a"])
def test_what_is_no_text_is_refused_by_its_type(value: object) -> None:
    with pytest.raises(InvalidReference, match=type(value).__name__):
        Reference.parse(value)  # type: ignore[arg-type]


def test_another_default_host() -> None:
    assert str(Reference.parse("a", default_host="localhost:5000")) == "localhost:5000/a"
    assert str(Reference.parse("b/a", default_host="localhost:5000")) == "localhost:5000/b/a"
    assert str(Reference.parse("docker.io/a", default_host="localhost:5000")) == "docker.io/library/a"
    assert str(Reference.parse("a", default_host="index.docker.io")) == "docker.io/library/a"


def test_a_host_that_would_be_read_back_as_docker_hubs_is_refused() -> None:
    # Else str() of it would name registry/a on Docker Hub, and a push would go there.
    with pytest.raises(InvalidReference, match="read as part of the repository") as raised:
        Reference("registry", "a")
    assert "registry:80" in raised.value.hint
    with pytest.raises(InvalidReference, match="read as part of the repository"):
        Reference.parse("a", default_host="registry")


def test_made_from_parts_it_is_what_its_text_parses_to() -> None:
    for made in (Reference("docker.io", "a", "t"), Reference("index.docker.io", "a", "t")):
        assert made == Reference.parse("a:t")
        assert made.with_tag("u").repository == "library/a"
    with pytest.raises(InvalidReference, match="longer than 255"):
        Reference("docker.io", "a" * 250)


@pytest.mark.parametrize(
    ("text", "familiar"),
    [
        ("docker.io/library/a:t", "a:t"),
        ("docker.io/team/a", "team/a"),
        ("docker.io/library/team/a", "library/team/a"),
        ("docker.io/library/library/a", "library/library/a"),
        ("docker.io/a.b/c", "docker.io/a.b/c"),
        ("docker.io/localhost/c", "docker.io/localhost/c"),
        ("docker.io/library/localhost", "localhost"),
        ("localhost:5000/library/a", "localhost:5000/library/a"),
        (f"docker.io/library/{HEX}", f"docker.io/library/{HEX}"),
        (f"docker.io/library/{HEX}:t", f"{HEX}:t"),
        ("docker.io/library/sha256:t", "docker.io/library/sha256:t"),
    ],
)
def test_the_familiar_name_is_short_unless_it_would_mean_something_else(text: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert reference.familiar == familiar
    assert Reference.parse(familiar) == reference


def test_what_is_asked_of_a_registry() -> None:
    assert Reference.parse(f"a:t@{DIGEST}").target == str(DIGEST)
    assert Reference.parse("a:t").target == "t"
    with pytest.raises(InvalidReference, match="neither a tag nor a digest"):
        _ = Reference.parse("a").target
    assert Reference.parse("a").or_latest().tag == "latest"
    assert Reference.parse("a:t").or_latest().tag == "t"
    assert Reference.parse(f"a@{DIGEST}").or_latest().tag is None


def test_derived_references_keep_the_repository_only() -> None:
    reference = Reference.parse(f"example.com/b/a:t@{DIGEST}")
    assert reference.name == "example.com/b/a"
    assert str(reference.with_tag("u")) == "example.com/b/a:u"
    assert str(reference.with_digest(SHA512)) == f"example.com/b/a@{SHA512}"
    assert str(reference.repository_only()) == "example.com/b/a"
    with pytest.raises(InvalidReference):
        reference.with_tag("not a tag")


def test_it_is_a_value() -> None:
    reference, same = Reference.parse(f"a:t@{DIGEST}"), Reference.parse(f"library/a:t@{DIGEST}")
    assert {reference: 1}[same] == 1
    assert reference != str(reference)
    assert copy.deepcopy(reference) == pickle.loads(pickle.dumps(reference)) == reference  # noqa: S301
    with pytest.raises(AttributeError, match="cannot be changed"):
        reference.tag = "u"


def test_the_checks_give_back_what_they_were_given() -> None:
    assert check_repository("a/b") == "a/b"
    assert check_tag("1.5") == "1.5"
    assert check_host("registry") == "registry"
    with pytest.raises(InvalidReference, match="empty"):
        check_repository("")


def test_a_long_tag_is_counted_as_it_is() -> None:
    with pytest.raises(InvalidReference, match=r"\(129 characters\) is longer than 128"):
        check_tag("t" * 129)
