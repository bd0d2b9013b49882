"""``registry.toml``: what it may say, what is refused, and that its page tells of every key."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import pytest

from digestry.errors import InvalidConfiguration
from digestry.registry import (
    config,
    cors,
    fleet_config,
    immutability_config,
    min_age_config,
    observe_config,
    proxies,
    quota_config,
    retention_config,
    scan_config,
    scrub,
    sparse_config,
    storage_config,
    toml,
    transparency_config,
    web_config,
    webhooks,
)
from digestry.registry import observability_config as observing
from digestry.registry.access import config as access
from digestry.registry.access import issuers, passwords, rules, sign_in_config
from digestry.registry.config import RegistryConfig, load
from digestry.registry.pull_through import config as mirroring_config
from digestry.registry.toml import Key
from tests.registry.access.support import htpasswd

PAGE = Path(__file__).parents[3] / "docs" / "registry.md"
SECTIONS: dict[str, Iterable[Key]] = {
    "At the top": config.KEYS,
    "`[tls]`": config.TLS_KEYS,
    "`[proxy]`": proxies.KEYS,
    "`[cors]`": cors.KEYS,
    "`[auth]`": access.KEYS,
    "`[[rule]]`": rules.KEYS,
    "`[[oidc]]`": issuers.KEYS,
    "`[oidc.sign-in]`": sign_in_config.KEYS,
    "`[[oidc.identity]]`": issuers.IDENTITY_KEYS,
    "`[[quota]]`": quota_config.KEYS,
    "`[[sparse]]`": sparse_config.KEYS,
    "`[[immutability]]`": immutability_config.KEYS,
    "`[[min-age]]`": min_age_config.KEYS,
    "`[[webhook]]`": webhooks.KEYS,
    "`[scrub]`": scrub.KEYS,
    "`[scan]`": scan_config.KEYS,
    "`[collection]`": retention_config.COLLECTION_KEYS,
    "`[fleet]`": fleet_config.KEYS,
    "`[[retention]]`": retention_config.RETENTION_KEYS,
    "`[metrics]`": observing.METRICS_KEYS,
    "`[health]`": observing.HEALTH_KEYS,
    "`[web]`": web_config.KEYS,
    "`[advisories]`": (
        Key("require-signature", toml.flag, False),
        Key("trusted-keys", toml.text, {}),
        Key("rules", toml.text, []),
    ),
    "`[log]`": observing.LOG_KEYS,
    "`[transparency]`": transparency_config.KEYS,
    "`[[transparency.witness]]`": transparency_config.WITNESS_KEYS,
    "`[[transparency.witnessed]]`": transparency_config.WITNESSED_KEYS,
    "`[observe]`": observe_config.KEYS,
    '`[observe."REPOSITORY"]`': observe_config.REPOSITORY_KEYS,
    '`[observe-registry."HOST"]`': (),  # in a sentence: a mirror's
    '`[mirror."HOST"]`': mirroring_config.KEYS,
    "`[storage]`": storage_config.KEYS,
    "`[limits]`": config.LIMIT_KEYS,
}
RULE = '[[rule]]\nwho = "x"\nactions = "pull"\n'


def loaded(tmp_path: Path, text: str, **options: object) -> RegistryConfig:
    file = tmp_path / "registry.toml"
    file.write_text(text)
    return load(file, cast("config.Options", {"root": tmp_path / "root", **options}))


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_has_every_key_with_its_default(section: str) -> None:
    text = PAGE.read_text(encoding="utf-8").partition(f"\n### {section}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| `([^`]+)` \|([^|]*)\|", text, re.MULTILINE)
    told = {name: default.strip() for name, default in rows}
    expected = {}
    for key in SECTIONS[section]:
        default = key.default
        if default is ... or default is None:
            expected[key.name] = ""
        else:
            if isinstance(default, tuple):
                default = default[0] if len(default) == 1 else list(default)
            elif isinstance(default, frozenset):
                default = sorted(default)
            expected[key.name] = f"`{json.dumps(default)}`"
    assert told == expected


def test_the_page_has_no_other_section() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("\n## Every key\n")[2]
    assert re.findall(r"^### (.*)$", text, re.MULTILINE) == list(SECTIONS)


def test_the_defaults_are_those_of_the_object(tmp_path: Path) -> None:
    assert loaded(tmp_path, "") == RegistryConfig(tmp_path / "root")
    assert load(None, {"root": tmp_path / "root"}) == RegistryConfig(tmp_path / "root")


def test_the_example_of_the_page(tmp_path: Path) -> None:
    example = PAGE.read_text(encoding="utf-8").partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "users").write_text(htpasswd({"alice": "a", "bob": "b"}))
    found = loaded(tmp_path, example)
    assert (found.host, found.port, found.workers) == ("0.0.0.0", 5000, 2)  # noqa: S104
    assert found.access.htpasswd == tmp_path / "users"
    assert [len(rule.actions) for rule in found.access.rules] == [1, 4, 2]
    assert found.quotas[0].bytes == 200 << 30


def test_options_go_before_the_file(tmp_path: Path) -> None:
    text = 'listen = "127.0.0.1:7000"\nworkers = 3\n[limits]\nmanifest = "8 MiB"\n'
    found = loaded(tmp_path, text, listen=None, workers=2, manifest_limit=None)
    assert (found.port, found.workers, found.manifest_limit) == (7000, 2, 8 << 20)
    assert loaded(tmp_path, text, manifest_limit=16 << 20).manifest_limit == 16 << 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("portt = 1", "unknown key 'portt'"),
        ("listen = 5000", "listen: a string is required"),
        ("workers = 0", "workers: a whole number from 1 to 64"),
        ("workers = true", "workers: a whole number"),
        ('allow-anonymous = "yes"', "true or false"),
        ("root = ", "not valid TOML"),
        ("[limits]\nupload = -1", "a number of bytes"),
        ('[limits]\nupload = "10 parsecs"', "a number of bytes"),
        ("[limits]\nmanifest = 1", "4 MiB to 64 MiB"),
        ("[limits]\nheader-seconds = 0", "a number of seconds"),
        ("[limits]\nheaderseconds = 1", "[limits]: unknown key 'headerseconds'"),
        ("limits = 3", "[limits]: a table is required"),
        ('[tls]\ncertificate = "x"', "the key key is missing"),
        ('[auth]\nchallenge = "digest"', "one of bearer, basic"),
        ("[auth]\nservice = 'a\"b'", "may have no"),
        ('[auth]\nrealm = "registry"', "realm: a URL"),
        ('[rule]\nwho = "x"', "write [[rule]]"),
        ('[[rule]]\nwho = "x"', "[rule 1]: the key actions is missing"),
        ('[[rule]]\nwho = []\nactions = "pull"', "a list of strings"),
        ('[[rule]]\nwho = "x"\nactions = "fly"', "unknown action"),
        (RULE + '[[rule]]\nwho = "x"\nactions = "pull"\nrepository = "a b"', "[rule 2]: repository: pattern"),
        ("[[quota]]", "it limits nothing"),
        ('[[quota]]\nbytes = 1\neach = "user"', "one of repository, pattern"),
        ('[[oidc]]\nissuer = "i"', "the key audience is missing"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        loaded(tmp_path, text)
    assert message in caught.value.message + caught.value.hint
    assert str(tmp_path / "registry.toml") in caught.value.message


def test_no_file_and_no_root(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="cannot read"):
        load(tmp_path / "none", {})
    with pytest.raises(InvalidConfiguration, match="no directory to keep"):
        load(None, {})


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "[::]", "registry.example.com"])  # noqa: S104
def test_others_are_not_let_in_by_accident(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidConfiguration, match="without asking") as caught:
        loaded(tmp_path, "", listen=f"{host}:0")
    assert "--allow-anonymous" in caught.value.hint
    assert loaded(tmp_path, "", listen=f"{host}:0", allow_anonymous=True).access.enabled is False
    assert loaded(tmp_path, "allow-anonymous = true", listen=f"{host}:0").host == host.strip("[]")
    assert loaded(tmp_path, "[auth]", listen=f"{host}:0").access.enabled
    assert loaded(tmp_path, RULE, listen=f"{host}:0").access.enabled


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "[::1]", "localhost"])
def test_this_machine_is_let_in(tmp_path: Path, host: str) -> None:
    assert not loaded(tmp_path, "", listen=f"{host}:0").access.enabled


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "is not a bcrypt hash"),
        ("alice:$apr1$xyz$abc", "htpasswd -B"),
        ("alice:plain", "is not a bcrypt hash"),
        ("alice", "no colon"),
        ("alice:$2y$31$" + "a" * 53, "has cost 31"),
        ("anonymous:$2y$05$" + "a" * 53, "cannot be a user's name"),
        ("robot$x:$2y$05$" + "a" * 53, "cannot be a user's name"),
        (":$2y$05$" + "a" * 53, "cannot be a user's name"),
        ("first:$2y$05$" + "a" * 53, "the user of line 3 is listed again"),
    ],
)
def test_users_that_are_refused(line: str, message: str) -> None:
    text = f"# users\n\nfirst:$2y$05${'a' * 53}\n{line}\n"
    with pytest.raises(InvalidConfiguration, match="users, line 4") as caught:
        passwords.parse(text, Path("users"))
    told = caught.value.message + caught.value.hint
    assert message in told
    assert not any(part in told for part in line.split(":")[:1] if part not in {"", "anonymous"})


def test_nothing_of_a_file_of_passwords_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is wrong may be a password in the wrong place, or a file that is something else altogether."""
    file = tmp_path / "users"
    good = f"alice:$2y$05${'a' * 53}\n"
    for content in (b"S3CRET", b"S3CRET word:x", b"S3CRET word:$2y$05$" + b"a" * 53, b"bob:S3CRET",
                    b"bob:$2y$99$" + b"S3CRETS3CRET" * 5, b"S3CRET\xff:", b"\xff\xfeS\x003\x00"):  # fmt: skip
        file.write_bytes(good.encode() + content)
        with pytest.raises(InvalidConfiguration) as caught:
            passwords.read(file)
        text = "".join(traceback.format_exception(caught.value))
        assert "S3CRET" not in text.replace(repr(content), "")
        file.write_text(good)
        users = passwords.Passwords(file)
        users.start()
        file.write_bytes(good.encode() + content)
        assert users.refresh() is False
        users.close()
    assert caplog.text
    assert "S3CRET" not in caplog.text


def test_there_is_a_worker_for_each_core_unless_nodes_share_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: config.Options = {"root": tmp_path}
    for cores, workers in (1, 1), (2, 2), (64, 4):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert load(None, options, environment={}).workers == workers
    assert load(None, {**options, "workers": 1}, environment={}).workers == 1
    node = {"DIGESTRY_DATABASE": "postgresql://registry@db.example/registry"}
    assert load(None, options, environment=node).workers == 1
