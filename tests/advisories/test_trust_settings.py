"""The table ``[advisories]`` of a configuration file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from digestry.advisories.signatures import UNSIGNED, Signature
from digestry.advisories.trust import TrustRule
from digestry.advisories.trust_settings import read_trust
from digestry.errors import InvalidConfiguration
from digestry.model.reference import Reference
from tests.advisories.signed import RECORDED, signing_key

PROD = Reference.parse("registry.example.com/prod/app")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "security.pub").write_bytes((RECORDED / "cosign.pub").read_bytes())
    (tmp_path / "builder.pub").write_bytes(signing_key("Ed25519").public_pem)
    (tmp_path / "private.key").write_bytes((RECORDED / "cosign.key").read_bytes())
    return tmp_path / "config.toml"


def test_keys_and_rules(file: Path) -> None:
    text = f"""
        require-signature = true
        [trusted-keys]
        security = "security.pub"
        inline = '''{(RECORDED / "cosign.pub").read_text()}'''
        [trusted-keys.builders]
        key = ["builder.pub", "{file.parent}/security.pub"]
        repositories = ["registry.example.com/prod", "*.test"]
        [[rules]]
        repositories = "registry.example.com/prod"
        statuses = ["fixed", "not-affected"]
        signers = "security"
        [[rules]]
        statuses = ["affected"]
        require-signature = false
    """
    policy = read_trust(tomllib.loads(text), file)
    assert policy.require_signature
    assert {one.name: (len(one.keys), one.repositories) for one in policy.signers} == {
        "security": (1, ()),
        "inline": (1, ()),
        "builders": (2, ("registry.example.com/prod", "*.test")),
    }
    assert policy.rules == (
        TrustRule(("registry.example.com/prod",), ("fixed", "not_affected"), ("security",)),
        TrustRule((), ("affected",), None, require_signature=False),
    )
    assert not policy.objection(UNSIGNED, "affected", PROD)
    assert policy.objection(UNSIGNED, "under_investigation", PROD)
    assert policy.objection(Signature("verified", "builders"), "fixed", PROD)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("requires-signature = true", "unknown key 'requires-signature'"),
        ("require-signature = 'yes'", "require-signature must be true or false"),
        ("require-signature = true", "there is no trusted key"),
        ("trusted-keys = 'security.pub'", "trusted-keys must be a table"),
        ("trusted-keys.a = 'missing.pub'", "cannot read 'missing.pub': No such file"),
        ("trusted-keys.a = '.'", "cannot read '.': Is a directory"),
        ('trusted-keys.a = "\\u0000"', "cannot read"),
        ("trusted-keys.a = ''", "must be a string, or a list of strings, and not empty"),
        ("trusted-keys.a = []", "has no key"),
        ("trusted-keys.a = {repositories = ['x.example']}", "key must be a string"),
        ("trusted-keys.a = {keys = 'x'}", "unknown key 'keys'"),
        ("trusted-keys.a = 'config.toml'", "it is not a public key in PEM"),
        ("trusted-keys.a = 'private.key'", "it is a private key"),
        ("trusted-keys.a = '-----BEGIN'", "it is not a public key in PEM"),
        ("trusted-keys.a = 1", "must be a string"),
        ("trusted-keys.\"\" = 'security.pub'", "needs a name"),
        ("trusted-keys.\"a\\u001b\" = 'security.pub'", "needs a name"),
        ("trusted-keys.a = {key = 'security.pub', repositories = ['a b']}", "HOST"),
        ("trusted-keys.a = {key = 'security.pub', repositories = ['*.a/b']}", "*.DOMAIN"),
        ("rules = {}", "must be written as [[advisories.rules]]"),
        ("rules = [1]", "must be a table"),
        ("[[rules]]\nsigner = 'a'", "unknown key 'signer'. Did you mean signers?"),
        ("[[rules]]\nsigners = ['nobody']", "'nobody', who has no key"),
        ("[[rules]]\nstatuses = ['fixt']", "'fixt' is not a status"),
        ("[[rules]]\nsigners = []\nrequire-signature = false", "cannot go with"),
    ],
)
def test_a_mistake_is_named(file: Path, text: str, why: str) -> None:
    file.write_text("nothing")
    with pytest.raises(InvalidConfiguration) as raised:
        read_trust(tomllib.loads(text), file)
    assert str(file) in raised.value.message
    assert why in f"{raised.value.message} {raised.value.hint}"


def test_it_must_be_a_table(file: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="must be a table"):
        read_trust("all", file)
