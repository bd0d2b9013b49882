"""The configuration and the credentials of an S3 store."""

from __future__ import annotations

import sys

import pytest

from digestry.blobs.s3.config import MIB, S3Config, parse_s3_url
from digestry.blobs.s3.credentials import Credentials, find_credentials
from digestry.errors import InvalidConfiguration


def test_a_url_alone_means_amazon() -> None:
    config = parse_s3_url("s3://bucket/some/prefix", {})
    assert (config.bucket, config.prefix) == ("bucket", "some/prefix")
    assert config.endpoint == "https://s3.us-east-1.amazonaws.com"
    assert config.path_style is False
    assert config.location == "s3://bucket/some/prefix"
    assert config.key("x") == "some/prefix/x"
    assert parse_s3_url("s3://bucket", {"AWS_DEFAULT_REGION": "eu-north-1"}).endpoint == (
        "https://s3.eu-north-1.amazonaws.com"
    )
    assert parse_s3_url("s3://my.bucket", {}).path_style  # no certificate is for such a name


def test_what_is_given_comes_before_the_environment() -> None:
    environment = {"AWS_ENDPOINT_URL": "http://a:1", "AWS_ENDPOINT_URL_S3": "http://b:2/", "AWS_REGION": "r"}
    config = parse_s3_url("s3://bucket/", environment)
    assert (config.endpoint, config.region, config.path_style) == ("http://b:2", "r", True)
    config = parse_s3_url("s3://bucket", environment, endpoint="https://c", region="q", path_style=False)
    assert (config.endpoint, config.region, config.path_style) == ("https://c", "q", False)


@pytest.mark.parametrize(("largest", "part"), [(0, 8), (80_000 * MIB, 8), (80_001 * MIB, 9), (100 << 30, 11)])
def test_parts_are_large_enough_for_the_largest_content(largest: int, part: int) -> None:
    config = parse_s3_url("s3://bucket", {}, largest=largest)
    assert config.part_size == part * MIB
    assert config.largest >= largest
    assert config.slots * config.part_size <= 64 * MIB


@pytest.mark.parametrize(
    "url",
    ["http://bucket", "s3://", "s3://B", "s3://key:secret@bucket/x", "s3://bucket:80/", "s3://bucket/a?b",
     "s3://bucket/a b", "s3://bucket/a//b", "s3://bucket/../x\n"],
)  # fmt: skip
def test_what_is_no_store_is_refused_without_its_secret(url: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        parse_s3_url(url, {})
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("endpoint", ["ftp://x", "x:80", "http://", "http://key:secret@x", "http://x?y"])
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        S3Config("bucket", endpoint=endpoint)
    assert "secret" not in caught.value.message


def test_a_part_has_a_smallest_size() -> None:
    with pytest.raises(InvalidConfiguration):
        S3Config("bucket", part_size=5 * MIB - 1)


def test_credentials_of_the_environment() -> None:
    environment = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}
    assert find_credentials(environment)() == Credentials("a", "b", "c")


def test_credentials_of_a_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    file = f"{tmp_path}/credentials"
    with open(file, "w", encoding="utf-8") as written:  # noqa: PTH123
        written.write("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", file)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert find_credentials({})() == Credentials("a", "b")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(InvalidConfiguration, match="no credentials"):
        find_credentials({})


def test_without_botocore_the_environment_is_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("botocore", "botocore.session", "botocore.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidConfiguration) as caught:
        find_credentials({})
    assert "digestry[aws]" in caught.value.hint
