"""``[storage]`` of a configuration, and what the environment says of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from digestry.errors import InvalidConfiguration
from digestry.registry import storage_config
from digestry.registry.storage_config import StorageConfig
from digestry.registry.toml import Where

WHERE = Where(Path("/etc/digestry/registry.toml"))
DATABASE = "postgresql://digestry:secret@db.example:5433/registry"


def parse(environment: Mapping[str, str] | None = None, /, **section: object) -> StorageConfig:
    return storage_config.parse({"storage": section} if section else {}, WHERE, environment or {})


def test_without_a_section_all_is_in_the_root() -> None:
    config = parse()
    assert (config.stores.database, config.stores.blobs) == (None, None)
    assert config.stores.needs_root


def test_the_environment_alone_names_a_whole_node() -> None:
    config = parse(
        {
            "DIGESTRY_DATABASE": DATABASE,
            "DIGESTRY_BLOBS": "s3://images/a/b",
        }
    )
    assert config.stores.database == DATABASE
    assert config.stores.blobs == "s3://images/a/b"
    assert not config.stores.needs_root


def test_the_environment_names_other_stores_than_the_file() -> None:
    config = parse({"DIGESTRY_BLOBS": "s3://other"}, database=DATABASE, blobs="s3://images")
    assert (config.stores.database, config.stores.blobs) == (DATABASE, "s3://other")


def test_the_password_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p@ss/word\n")
    where = Where(tmp_path / "registry.toml")
    section = {"database": "postgresql://me@db/registry", "database-password-file": "password"}
    config = storage_config.parse({"storage": section}, where, {})
    assert config.stores.database == "postgresql://me:p%40ss%2Fword@db/registry"


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(parse(database=DATABASE))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"database": "mysql://u:secret@h/d"}, 'database: a URL such as "postgresql://'),
        ({"database": "postgresql://u:secret@h"}, "the URL has no database"),
        ({"database": "postgresql://u:secret@h:port/d"}, "it is not a URL"),
        ({"database": 5}, "a string is required"),
        ({"blobs": "/var/lib"}, "s3://BUCKET/PREFIX is required"),
        ({"blobs": "s3://ab"}, "blobs: 'ab' is not the name of an S3 bucket"),
        ({"blobs": "s3://key:secret@bucket/p"}, "credentials come from the environment"),
        ({"blobs": "s3://images", "redirect": ["10.0.0.0/99"]}, "redirect: true, false or networks"),
        (
            {"blobs": "s3://images", "endpoint": "127.0.0.1:9000"},
            "'127.0.0.1:9000' is not the endpoint",
        ),
        ({"blobs": "s3://images", "endpoint": "http://key:secret@h"}, "endpoint: 'h' is not the endpoint"),
        ({"blobs": "s3://images", "endpoint": "http://h:port"}, "endpoint: 'http://h:port' is not a URL"),
        ({"endpoint": "http://127.0.0.1:9000"}, "endpoint is of an S3 store, and blobs names none"),
        ({"redirect": True}, "redirect is of an S3 store, and blobs names none"),
        ({"database-password-file": "p"}, "database-password-file is given, and no database"),
        ({"databse": "x"}, "unknown key 'databse'"),
    ],
)
def test_what_is_wrong_is_named_without_secrets(section: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        parse(**section)
    assert said in caught.value.message
    assert "[storage]" in caught.value.message
    assert "secret" not in str(caught.value)


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(InvalidConfiguration, match="DIGESTRY_DATABASE: the URL has no database"):
        parse({"DIGESTRY_DATABASE": "postgresql://u:secret@h"})


@pytest.mark.parametrize(
    ("redirect", "address", "redirected"),
    [
        (True, "203.0.113.5", True),
        (False, "10.1.2.3", False),
        (["10.0.0.0/8", "fd00::/8"], "10.1.2.3", True),
        (["10.0.0.0/8", "fd00::/8"], "::ffff:10.1.2.3", True),
        (["10.0.0.0/8", "fd00::/8"], "fd00::1%eth0", True),
        (["10.0.0.0/8", "fd00::/8"], "11.0.0.1", False),
        (["10.0.0.0/8"], "", False),
    ],
)
def test_who_is_redirected(redirect: object, address: str, redirected: bool) -> None:
    assert parse(blobs="s3://images", redirect=redirect).redirect.applies_to(address) is redirected
