"""``digestry config`` and the settings that it changes."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from pathlib import Path

import bcrypt
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from digestry.cli import settings
from digestry.cli.config import config
from digestry.errors import DigestryError, InvalidConfiguration, InvalidReference, StorageError
from digestry.model.reference import DOCKER_HUB
from tests.inventory.kube import make_papers


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv("DIGESTRY_HOME", str(home))
    for variable in ("DOCKER_CONFIG", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    return home


def run(*arguments: str) -> Result:
    return CliRunner().invoke(config, arguments)


def failure(*arguments: str) -> DigestryError:
    error = run(*arguments).exception
    assert isinstance(error, DigestryError)
    return error


def written(home: Path, text: str) -> Path:
    home.mkdir(exist_ok=True)
    path = home / "config.toml"
    path.write_bytes(text.encode())
    return path


# -- where things are ---------------------------------------------------------------------------


def test_one_variable_places_everything(home: Path) -> None:
    assert settings.locate() == (home / "config.toml", home / "images")


def test_the_xdg_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIGESTRY_HOME")
    user = tmp_path / "user"
    defaults = (user / ".config/digestry/config.toml", user / ".local/share/digestry/images")
    assert settings.locate() == defaults
    for useless in ("", "relative/path"):
        monkeypatch.setenv("XDG_CONFIG_HOME", useless)
        monkeypatch.setenv("XDG_DATA_HOME", useless)
        assert settings.locate() == defaults
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "d"))
    assert settings.locate() == (tmp_path / "c/digestry/config.toml", tmp_path / "d/digestry/images")


def test_a_home_that_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGESTRY_HOME", "~no-such-user-here/x")
    with pytest.raises(InvalidConfiguration, match="no-such-user-here") as raised:
        settings.locate()
    assert "DIGESTRY_HOME" in raised.value.hint


def test_the_settings_for_programs(home: Path) -> None:
    assert run("set", "registry", "localhost:5000").exit_code == 0
    shown = json.loads(run("show", "--format", "json").stdout)
    assert shown["file"] == str(home / "config.toml")
    assert shown["images"] == str(home / "images")
    assert [row["key"] for row in shown["settings"]] == list(settings.KEYS)
    values = {row["key"]: row["value"] for row in shown["settings"]}
    assert (values["registry"], values["docker-config"]) == ("localhost:5000", None)


# -- reading ------------------------------------------------------------------------------------


def test_the_defaults(home: Path, tmp_path: Path) -> None:
    loaded = settings.load()
    assert loaded._replace(tell=print) == settings.Settings(
        config_file=home / "config.toml",
        store=home / "images",
        registry=DOCKER_HUB,
        insecure_registries=(),
        docker_config=tmp_path / "user" / ".docker",
        tell=print,
    )
    assert str(loaded.reference("a")) == "docker.io/library/a"
    assert not home.exists()


def test_the_file_counts_more_than_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", "/from/environment")
    assert settings.load().docker_config == Path("/from/environment")
    written(
        home,
        'registry = "localhost:5000"\n'
        'insecure-registries = " localhost:5000, example.com ,"\n'
        'docker-config = "~/docker"\n',
    )
    loaded = settings.load()
    assert loaded.registry == "localhost:5000"
    assert loaded.insecure_registries == ("localhost:5000", "example.com")
    assert loaded.docker_config == Path("~/docker").expanduser()
    assert str(loaded.reference("a")) == "localhost:5000/a"
    with pytest.raises(InvalidReference):
        loaded.reference("A")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("registry = ", "is not valid TOML"),
        ("\x00", "is not valid TOML"),
        ('registry = "a"\nregistry = "b"', "is not valid TOML"),
        ("registry = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ('registri = "localhost:5000"', "unknown setting 'registri'"),
        ('"\\u001b[31m" = "x"', r"unknown setting '\x1b[31m'"),
        ("registry = 5", "registry must be a string"),
        ('insecure-registries = ["localhost:5000"]', "insecure-registries must be a string"),
        ("[registry]", "registry must be a string"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_kept(home: Path, text: str, complaint: str) -> None:
    path = written(home, text)
    for error in (failure("show"), failure("set", "registry", "localhost:5000")):
        assert isinstance(error, InvalidConfiguration)
        assert complaint in error.message
        assert str(path) in error.message
    assert path.read_bytes() == text.encode()


def test_a_file_that_is_no_text_is_refused(home: Path) -> None:
    path = written(home, "")
    path.write_bytes(b"registry = '\xff'")
    with pytest.raises(InvalidConfiguration, match="is not UTF-8"):
        settings.load()
    path.unlink()
    path.mkdir()
    with pytest.raises(InvalidConfiguration, match="cannot read"):
        settings.load()


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("registry", "", "registry host ''"),
        ("registry", "https://example.com", "registry host"),
        ("registry", "localhost:99999", "port out of range"),
        ("registry", "example.com/team", "registry host"),
        # Names with it would be read back as Docker Hub's.
        ("registry", "registry", "part of the repository"),
        ("insecure-registries", "localhost:5000,no host", "registry host 'no host'"),
        ("docker-config", "/a/\udcff", "not UTF-8"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(home: Path, key: str, value: str, complaint: str) -> None:
    with pytest.raises(InvalidConfiguration) as raised:
        settings.check_value(key, value)
    assert complaint in raised.value.message
    assert f"setting {key}:" in raised.value.message
    assert isinstance(failure("set", key, value), InvalidConfiguration)
    assert not (home / "config.toml").exists()


def test_a_bad_value_in_the_file_is_refused_when_it_matters(home: Path) -> None:
    written(home, 'registry = "no host"')
    with pytest.raises(InvalidConfiguration, match="setting registry"):
        settings.load()
    # And can be mended with the verb.
    assert run("set", "registry", "localhost:5000").exit_code == 0
    assert settings.load().registry == "localhost:5000"


def test_an_unknown_key_names_the_known_ones() -> None:
    with pytest.raises(InvalidConfiguration) as raised:
        settings.check_value("frobnicate", "x")
    assert all(key in raised.value.hint for key in settings.KEYS)


# -- the verb -----------------------------------------------------------------------------------


def test_set_get_show_unset(home: Path) -> None:
    assert run("get", "registry").output == ""
    assert run("set", "registry", "localhost:5000").output == ""
    assert run("get", "registry").output == "localhost:5000\n"
    shown = run("show").output
    assert all(key in shown for key in settings.KEYS)
    assert "localhost:5000" in shown
    assert str(home / "config.toml") in shown
    assert run("unset", "registry").exit_code == 0
    assert run("unset", "registry").exit_code == 0
    assert run("get", "registry").output == ""


def test_the_rest_of_the_file_stays(home: Path) -> None:
    path = written(home, '# mine\r\nregistry = "a.b"  # why\r\n\r\ndocker-config = "/d"\r\n')
    run("set", "registry", "c.d")
    assert path.read_bytes() == b'# mine\r\nregistry = "c.d"  # why\r\n\r\ndocker-config = "/d"\r\n'
    run("unset", "registry")
    assert path.read_bytes() == b'# mine\r\n\r\ndocker-config = "/d"\r\n'


def test_a_linked_file_stays_linked_and_private(home: Path, tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles.toml"
    kept.write_text('registry = "a.b"\n', encoding="utf-8")
    kept.chmod(0o600)
    home.mkdir()
    (home / "config.toml").symlink_to(kept)
    run("set", "registry", "c.d")
    assert (home / "config.toml").is_symlink()
    assert kept.read_text(encoding="utf-8") == 'registry = "c.d"\n'
    assert kept.stat().st_mode & 0o777 == 0o600


def test_nothing_is_shown_raw(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(home, r'docker-config = "/\u001b[31m\u202e"')
    for arguments in (["show"], ["get", "docker-config"]):
        out = run(*arguments).output
        assert r"/\x1b[31m\u202e" in out
        assert all(line.isprintable() for line in out.splitlines())
    monkeypatch.setenv("DIGESTRY_HOME", "/\x1b[31m\udcff")
    assert r"/\x1b[31m\udcff" in run("show").output


def test_a_disk_that_fails_is_storages_fault(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(home, 'registry = "a.b"\n')

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fail)
    error = failure("set", "registry", "c.d")
    assert isinstance(error, StorageError)
    assert str(path) in error.message
    assert path.read_bytes() == b'registry = "a.b"\n'
    assert {entry.name for entry in home.iterdir()} == {"config.toml", ".config.lock"}


def test_a_file_where_the_directory_should_be(home: Path) -> None:
    home.touch()
    assert isinstance(failure("set", "registry", "c.d"), InvalidConfiguration | StorageError)


@hypothesis_settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_value_comes_back(home: Path, value: str) -> None:
    settings.change("docker-config", value)
    assert settings.read_values(home / "config.toml") == {"docker-config": value}
    assert tomllib.loads((home / "config.toml").read_bytes().decode()) == {"docker-config": value}


# -- a registry's configuration -----------------------------------------------------------------


REGISTRY = """
root = "root"
listen = "0.0.0.0:5000"

[tls]
certificate = "certificate.pem"
key = "key.pem"

[auth]
htpasswd = "users"
"""


@pytest.fixture
def registry_toml(tmp_path: Path) -> Path:
    """A configuration without mistakes, and the files that it names."""
    papers = make_papers(tmp_path)
    shutil.copy(papers.path("server.pem"), tmp_path / "certificate.pem")
    shutil.copy(papers.path("server.key"), tmp_path / "key.pem")
    (tmp_path / "users").write_bytes(b"alice:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)) + b"\n")
    file = tmp_path / "registry.toml"
    file.write_text(REGISTRY)
    return file


def test_a_configuration_without_mistakes(registry_toml: Path) -> None:
    done = run("check", str(registry_toml))
    assert (done.exit_code, done.stdout) == (0, f"{registry_toml}: no mistake found\n")
    assert not (registry_toml.parent / "root").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workerz = 2\n" + REGISTRY, "unknown key"),
        (REGISTRY + "\n[limits]\nupload = 'much'\n", "[limits]"),
        (REGISTRY + "\n[[webhook]]\nurl = 'https://a.example'\n", "[webhook 1]"),
        (REGISTRY.replace("[auth]", "[auths]"), "auths"),
        ("root = ", "not valid TOML"),
        ("listen = '0.0.0.0:5000'\nroot = 'root'\n", "not a loopback address"),
        ("listen = '127.0.0.1:5000'\n", "no directory"),
    ],
)
def test_a_mistake_in_the_file_is_named(registry_toml: Path, text: str, message: str) -> None:
    registry_toml.write_text(text)
    error = failure("check", str(registry_toml))
    assert isinstance(error, InvalidConfiguration)
    assert message in error.message


def test_all_files_with_mistakes_are_named(registry_toml: Path) -> None:
    (registry_toml.parent / "users").write_text("alice:{SHA}nothing\n")
    (registry_toml.parent / "key.pem").write_text("no key\n")
    done = run("check", str(registry_toml))
    assert done.exit_code == 2
    assert "users" in done.stderr
    assert "[tls]" in done.stderr
    assert "{SHA}" not in done.stderr
    assert done.stdout == ""


def test_a_root_of_the_command_line(registry_toml: Path) -> None:
    registry_toml.write_text(REGISTRY.replace('root = "root"', ""))
    assert run("check", str(registry_toml), "--root", "elsewhere").exit_code == 0
