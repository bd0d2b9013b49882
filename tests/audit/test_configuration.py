"""``fleet.toml``: what it may say, what is said of what it may not, and that its page tells it all."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from digestry.audit import configuration
from digestry.audit.configuration import MIRROR_DEFAULTS, SOURCE_DEFAULTS, TABLES, SourceEntry, load
from digestry.audit.image_names import HUB, Alias, Mirror, RepositoryPrefix
from digestry.errors import InvalidConfiguration
from digestry.inventory.gathering import SOURCE_TIMEOUT

PAGE = Path(__file__).parents[2] / "docs" / "fleet-file.md"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    return path


def test_nothing_is_a_configuration(tmp_path: Path) -> None:
    assert load(written(tmp_path, "")) == configuration.FleetConfiguration()


def test_everything(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text(
        json.dumps({"registry-mirrors": ["http://m.example:5000", "x://y"]})
    )
    (tmp_path / "certs.d" / "quay.io").mkdir(parents=True)
    (tmp_path / "certs.d" / "quay.io" / "hosts.toml").write_text('[host."https://quay.internal"]')
    found = load(
        written(
            tmp_path,
            """
            [[source]]
            kind = "docker"
            where = "tcp://10.0.0.1:2375"
            name = "first"
            timeout = 20
            host = "node-1"
            all = true

            [[source]]  # the second
            kind = "file"
            where = "inventory.csv"

            [aliases]
            "mirror.internal:5000/dockerhub" = "docker.io"

            [mirrors]
            docker = ["daemon.json"]
            containerd = ["certs.d"]
            """,
        )
    )
    assert found.entries == (
        SourceEntry("docker", "tcp://10.0.0.1:2375", "first", 20.0, "node-1", all=True),
        SourceEntry("file", "inventory.csv"),
    )
    assert found.names.aliases == (Alias(RepositoryPrefix("mirror.internal:5000", "dockerhub"), HUB),)
    assert found.names.mirrors == (
        Mirror(HUB, RepositoryPrefix("m.example:5000")),
        Mirror(RepositoryPrefix("quay.io"), RepositoryPrefix("quay.internal")),
    )
    assert found.plain_hosts == {"m.example:5000"}
    assert [problem.source for problem in found.problems] == [str(tmp_path / "daemon.json")]
    first, second = found.sources()
    assert (first.name, first.timeout, first.host) == ("first", 20.0, "node-1")
    assert (second.name, second.timeout) == ("file:inventory.csv", SOURCE_TIMEOUT)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = 1", r"fleet\.toml, line 1: unknown key 'a'"),
        ("\n[sources]\n", r"line 2: unknown key 'sources'"),
        ("[source]\nkind='docker'", r"line 1: source must be written as \[\[source\]\]"),
        ("[[source]]\nkind='docker'\n[[source]]\nkind='file'\nwere='x'", r"line 5: unknown key 'were' in"),
        ("[[source]]\nwhere='x'", r"line 1: the first \[\[source\]\] has no kind"),
        ("[[source]]\nkind=''", r"line 1: the first \[\[source\]\] has no kind"),
        ("[[source]]\nkind='docker'\n\n[[source]]\nkind=1", r"line 5: kind must be a string, not 1"),
        ("[[source]]\nkind='docker'\ntimeout='x'", r"line 3: timeout must be a number of seconds"),
        ("[[source]]\nkind='docker'\ntimeout=true", r"line 3: timeout must be a number of seconds"),
        ("[[source]]\nkind='docker'\ntimeout=0", r"line 3: timeout must be 0\.1 seconds or more"),
        ("[[source]]\nkind='docker'\ntimeout=nan", r"line 3: timeout must be"),
        ("[[source]]\nkind='docker'\ntimeout=inf", r"line 3: timeout must be"),
        ("[[source]]\nkind='docker'\nall='yes'", r"line 3: all must be true or false"),
        ("aliases = 1", r"line 1: aliases must be a table|fleet\.toml: aliases must be a table"),
        ("[aliases]\n'a.example' = 1", r"line 2: the alias 'a\.example' must be a string"),
        ("[aliases]\n'a.example' = 'mirror'", r"line 2: alias: .*'mirror'"),
        ("[aliases]\n'https://a' = 'docker.io'", r"line 2: alias: "),
        ("[aliases]\n'docker.io' = 'index.docker.io'", r"line 2: docker\.io is an alias of itself"),
        ("[mirrors]\npodman = []", r"line 2: unknown key 'podman' in \[mirrors\]"),
        ("[mirrors]\ndocker = 'x'", r"line 2: docker must be a list of paths"),
        ("[mirrors]\ndocker = ['none.json']", r"line 2: cannot read .*none\.json"),
        ("[mirrors]\ncontainerd = ['none']", r"line 2: cannot read .*none"),
        ("[[source]\n", r"fleet\.toml is not valid TOML: .*line 1"),
        ("a = " + "[" * 100_000, r"fleet\.toml is (nested too deeply|not valid TOML)"),
    ],
)
def test_what_it_may_not_say(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidConfiguration, match=says):
        load(written(tmp_path, text))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"cannot read .*none\.toml: No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe9'")
    with pytest.raises(InvalidConfiguration, match=r"latin\.toml is not UTF-8"):
        load(tmp_path / "latin.toml")


def test_an_unknown_kind_names_its_entry(tmp_path: Path) -> None:
    found = load(written(tmp_path, "[[source]]\nkind = 'docker'\n[[source]]\nkind = 'swarm'"))
    with pytest.raises(InvalidConfiguration, match=r"the second \[\[source\]\].*'swarm'"):
        found.sources()


def documented(heading: str) -> dict[str, str]:
    """The keys and defaults in the page's table under ``heading``."""
    section = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", section, re.MULTILINE)
    return {key: default.strip() for key, default in rows}


def test_the_page_has_every_key_and_its_default() -> None:
    def shown(value: object) -> str:
        return "required" if value is None else f"`{json.dumps(value)}`"

    assert documented("`[[source]]`") == {key: shown(value) for key, value in SOURCE_DEFAULTS.items()}
    assert documented("`[mirrors]`") == {key: shown(value) for key, value in MIRROR_DEFAULTS.items()}
    for table in TABLES:
        assert f"## `[{table}]`" in PAGE.read_text() or f"## `[[{table}]]`" in PAGE.read_text()


def test_the_defaults_are_those_of_the_entry() -> None:
    fields = {one.name: one.default for one in dataclasses.fields(SourceEntry)}
    assert {key: fields[key] for key in SOURCE_DEFAULTS if key != "kind"} == {
        key: value for key, value in SOURCE_DEFAULTS.items() if key != "kind"
    }
    assert set(fields) == set(SOURCE_DEFAULTS)


def test_the_page_s_example_is_read(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert example is not None
    text = re.sub(r'"/etc/[^"]+"', '"."', example[1]).replace('docker = ["."]', "docker = []")
    found = load(written(tmp_path, text))
    assert found.entries
    assert found.names.aliases
