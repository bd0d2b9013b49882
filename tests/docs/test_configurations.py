"""The registry accepts the configurations that its pages show."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from digestry.advisories.trust_settings import read_trust
from digestry.cli.registry_blocks import read_blocks
from digestry.registry.config import load
from tests.docs.pages import HOUSE, Block, blocks

_PAGES = [HOUSE / "docs" / f"{name}.md" for name in ("registry", "tags", "mirror", "collection", "integrity")]
_PAGES.append(HOUSE / "docs" / "observability.md")
_SHOWN = [
    block
    for page in _PAGES
    for block in blocks(page)
    if block.language == "toml" and not block.directive.startswith("not run")
]


@pytest.mark.parametrize("block", _SHOWN, ids=lambda block: block.where.removeprefix("docs/"))
def test_a_configuration_is_accepted(block: Block, tmp_path: Path) -> None:
    for name in ("deploy.secret", "quay-password", "users"):
        (tmp_path / name).write_text("0123456789abcdef" if name != "users" else "")
    for name in ("fullchain.pem", "key.pem"):
        (tmp_path / name).touch()
    text = block.text.replace("/etc/digestry", str(tmp_path)).replace(
        "/var/lib/digestry", str(tmp_path / "root")
    )
    file = tmp_path / "registry.toml"
    file.write_text(text)
    config = load(file, {"root": tmp_path / "root"})
    assert config.root == tmp_path / "root"


def test_the_tables_of_the_user_s_own_file_are_accepted() -> None:
    page = HOUSE / "docs" / "configuration.md"
    of_registries, of_advisories = [block for block in blocks(page) if block.language == "toml"]
    file = Path("/home/ada/config.toml")
    read = read_blocks(tomllib.loads(of_registries.text)["registries"], file)
    assert [rule.pattern for rule in read.hosts] == ["registry.example.com"]
    assert [rule.prefix for rule in read.names] == ["docker.io", "*.untrusted.example"]
    trust = read_trust(tomllib.loads(of_advisories.text)["advisories"], file)
    assert [signer.name for signer in trust.signers] == ["security"]
    assert len(trust.rules) == 2


def test_every_page_has_one() -> None:
    assert {block.page for block in _SHOWN} == set(_PAGES)
