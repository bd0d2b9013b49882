"""Containers' ``registries.conf``: what is read of it, and that skopeo reads the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from digestry.client.configuration.files import configuration_files, demands_something, says_something
from digestry.client.configuration.registries_conf import RegistriesConf, read_registries
from digestry.client.configuration.rules import Mirror
from digestry.client.configuration.short_names import find_alias
from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.errors import Forbidden, InvalidConfiguration, RemoteNotFound, Unreachable
from digestry.model.reference import Reference
from tests.client.liar import lying
from tests.support import program

_MIRROR = '[[registry]]\nlocation = "a.example"\n[[registry.mirror]]\nlocation = "b.example"\n'


def read(directory: Path, *texts: str) -> RegistriesConf:
    files = []
    for number, text in enumerate(texts):
        files.append(directory / f"{number}.conf")
        files[-1].write_text(text)
    return read_registries(files)


def test_a_registry_with_mirrors(tmp_path: Path) -> None:
    conf = read(
        tmp_path,
        """
        [[registry]]
        prefix = "docker.io/library"
        location = "hub.example:5000/library"
        insecure = true
        [[registry.mirror]]
        location = "one.example/hub/"
        [[registry.mirror]]
        location = "two.example"
        pull-from-mirror = "digest-only"
        insecure = true
        """,
    )
    (rule,) = conf.rules().for_name("docker.io/library/alpine:3")
    assert rule.mirrors == (Mirror("one.example/hub"), Mirror("two.example", by_tag=False))
    assert rule.moved("docker.io/library/alpine", "one.example/hub") == "one.example/hub/alpine"
    assert rule.location == "hub.example:5000/library"
    assert rule.origin == str(tmp_path / "0.conf")
    assert conf.rules().for_name("docker.io/libraryx/alpine") == []
    found = {
        host: conf.rules().may_be_plain(host) for host in ("hub.example:5000", "two.example", "one.example")
    }
    assert found == {"hub.example:5000": True, "two.example": True, "one.example": False}


def test_mirrors_by_digest_only(tmp_path: Path) -> None:
    conf = read(
        tmp_path,
        '[[registry]]\nlocation = "a.example"\nmirror-by-digest-only = true\n'
        '[[registry.mirror]]\nlocation = "m.example"\n',
    )
    assert conf.names["a.example"].mirrors == (Mirror("m.example", by_tag=False),)


def test_the_longest_prefix_counts(tmp_path: Path) -> None:
    conf = read(
        tmp_path,
        """
        [[registry]]
        prefix = "*.example.com"
        blocked = true
        [[registry]]
        location = "good.example.com/team"
        [[registry]]
        location = "bad.example/team"
        blocked = true
        """,
    )
    found = conf.rules()
    for name in ("a.example.com/x", "b.a.example.com:5000/x", "bad.example/team", "bad.example/team/x:1"):
        with pytest.raises(Forbidden, match="blocks"):
            found.check(name)
    for name in ("example.com/x", "bad.example/teams", "bad.example/other", "good.example.com/team/x"):
        found.check(name)


def test_a_later_file_replaces_what_is_said_of_the_same_prefix(tmp_path: Path) -> None:
    conf = read(
        tmp_path,
        """
        unqualified-search-registries = ["a.example"]
        [[registry]]
        location = "x.example"
        blocked = true
        [[registry]]
        location = "y.example"
        blocked = true
        [aliases]
        "one" = "a.example/one"
        """,
        """
        [[registry]]
        location = "x.example"
        [aliases]
        "one" = "b.example/one"
        "two" = "b.example/two"
        """,
    )
    assert conf.names["x.example"].blocked is None
    assert conf.names["y.example"].blocked is True
    assert {short: alias.name for short, alias in conf.aliases.items()} == {
        "one": "b.example/one",
        "two": "b.example/two",
    }
    assert conf.search == ("a.example",)
    assert conf.search_origin == tmp_path / "0.conf"


def test_files_of_aliases_are_read_as_toml_reads_them(tmp_path: Path) -> None:
    text = '# names\n[aliases]\n  # some\n  "one" = "a.example/one"\n"two"="b.example/two"\n'
    path = tmp_path / "shortnames.conf"
    path.write_text(text)
    assert not says_something(path)
    quick = read_registries([path])
    path.write_text(text + '"three" = "c.example/three" # a comment\n')
    slow = read_registries([path])
    assert slow.aliases.pop("three").name == "c.example/three"
    assert quick.aliases == slow.aliases
    path.write_text("[[registry]]\n" + text)
    assert says_something(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[registry]]\nblocked = true\n", "number 1 has neither prefix nor location"),
        ('[[registry]]\nlocation = "a.example"\nblocked = "yes"\n', "blocked must be true or false"),
        ("[[registry]]\nlocation = 1\n", "location must be a string"),
        ('[[registry]]\nlocation = "https://a.example"\n', "registry host .* is not valid"),
        ('[[registry]]\nprefix = "*.a.example/x"\n', r"is not \*\.DOMAIN"),
        ('registry = "a.example"\n', "registry must be a list of tables"),
        ('[[registry]]\nlocation = "a.example"\n[[registry.mirror]]\n', "mirror number 1 has no location"),
        (_MIRROR + 'pull-from-mirror = "never"\n', "pull-from-mirror is 'never'"),
        ('[registries.search]\nregistries = ["a.example"]\n', "is of version 1"),
        ("[aliases]\none = 1\n", "must have strings only"),
        ("unqualified-search-registries = 'a.example'\n", "must be a list of strings"),
        ("[[registry\n", "is not valid TOML"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "0.conf") in caught.value.message


def test_which_files_are_read(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "root"
    system, user = root / "etc/containers", home / ".config/containers"
    for directory in (system / "registries.conf.d", user / "registries.conf.d"):
        directory.mkdir(parents=True)
    for path in ("registries.conf", "registries.conf.d/2.conf", "registries.conf.d/1.conf", "policy.json"):
        (system / path).touch()
    (system / "registries.conf.d/readme").touch()
    (user / "registries.conf.d/0.conf").touch()
    environment = {"HOME": str(home)}
    found = configuration_files(environment, root=root)
    beside = [system / "registries.conf.d" / name for name in ("1.conf", "2.conf")]
    assert found.registries == (
        system / "registries.conf",
        *beside,
        user / "registries.conf.d/0.conf",
    )
    assert found.policy == system / "policy.json"
    assert found.certificates == (
        home / ".config/containers/certs.d",
        home / ".config/docker/certs.d",
        system / "certs.d",
        root / "etc/docker/certs.d",
    )
    (user / "registries.conf").touch()
    (user / "policy.json").touch()
    found = configuration_files(environment, root=root)
    assert found.registries[0] == user / "registries.conf"
    assert found.policy == user / "policy.json"
    named = tmp_path / "mine.conf"
    with pytest.raises(InvalidConfiguration, match="CONTAINERS_REGISTRIES_CONF names"):
        configuration_files(environment | {"CONTAINERS_REGISTRIES_CONF": str(named)}, root=root)
    named.touch()
    found = configuration_files(environment | {"CONTAINERS_REGISTRIES_CONF": str(named)}, root=root)
    assert found.registries[:2] == (named, beside[0])
    docker_alone = configuration_files(environment, containers=False, root=root)
    assert docker_alone.registries == ()
    assert docker_alone.policy is None
    assert docker_alone.certificates == (home / ".config/docker/certs.d", root / "etc/docker/certs.d")


def test_aliases_that_podman_recorded_go_first(tmp_path: Path) -> None:
    directory = tmp_path / ".config/containers"
    directory.mkdir(parents=True)
    (directory / "registries.conf").write_text(
        '[aliases]\n"one" = "a.example/one"\n"two" = "a.example/two"\n'
    )
    cache = tmp_path / ".cache/containers"
    cache.mkdir(parents=True)
    (cache / "short-name-aliases.conf").write_text('[aliases]\n"one" = "b.example/one"\n"two" = ""\n')
    files = configuration_files({"HOME": str(tmp_path)}, root=tmp_path / "nothing")
    alias, _ = find_alias(["one"], files)
    assert alias is not None
    assert (alias.name, alias.origin) == ("b.example/one", cache / "short-name-aliases.conf")
    assert find_alias(["two"], files)[0] is None


def test_a_policy_that_accepts_anything_needs_no_more_reading(tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    assert not demands_something(policy)
    for kind in ("reject", "signedBy", "sigstoreSigned", r"\u0072eject"):
        policy.write_text(f'{{"default": [{{"type": "{kind}"}}]}}')
        assert demands_something(policy)


def table(prefix: str, place: str) -> str:
    return f'[[registry]]\nprefix = "{prefix}"\nlocation = "{{host}}/{place}"\ninsecure = true\n'


def mirror(place: str) -> str:
    return f'[[registry.mirror]]\nlocation = "{{host}}/{place}"\ninsecure = true\n'


@pytest.mark.peer("skopeo")
@pytest.mark.parametrize(
    ("file", "image"),
    [
        (table("far.example", "x"), "far.example/a/b:1"),
        (table("*.far.example", "x"), "some.far.example/a/b:1"),
        (table("far.example/a", "x") + table("far.example", "y"), "far.example/a/b:1"),
        (table("far.example", "x") + table("far.example/a/b", "y"), "far.example/a/b:1"),
        ('[[registry]]\nlocation = "far.example"\n' + mirror("m") + mirror("n"), "far.example/a/b:1"),
    ],
    ids=["host", "wildcard", "longest first", "longest last", "mirrors"],
)
def test_skopeo_asks_the_same_place(tmp_path: Path, file: str, image: str) -> None:
    """The first name that each asks a registry for, when the file is read."""
    with lying() as server:
        path = tmp_path / ".config/containers/registries.conf"
        path.parent.mkdir(parents=True)
        path.write_text(file.replace("{host}", server.host))
        subprocess.run(
            [program("skopeo"), "inspect", "--raw", f"docker://{image}"],
            env=os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / ".config")},
            capture_output=True,
            check=False,
        )
        theirs = next(one.path for one in server.seen if "/manifests/" in one.path)
        name = Reference.parse(image)
        options = ClientOptions(registries=read_registries([path]).rules())
        server.seen.clear()
        with Session(options) as session, pytest.raises((RemoteNotFound, Unreachable)):
            session.image_source(name).resolve(name.target)
        assert server.seen[0].path == theirs


def test_a_home_that_is_closed_is_passed_over(tmp_path: Path) -> None:
    """As for a service whose unit keeps it out of all homes."""
    loop = tmp_path / "home"
    loop.symlink_to(loop)
    found = configuration_files({"HOME": str(loop)}, root=tmp_path)
    assert found.certificates == (tmp_path / "etc/containers/certs.d", tmp_path / "etc/docker/certs.d")
    (tmp_path / "etc/containers").mkdir(parents=True)
    conf = tmp_path / "etc/containers/registries.conf"
    conf.symlink_to(conf)
    with pytest.raises(InvalidConfiguration, match="cannot read") as caught:
        configuration_files({"HOME": str(loop)}, root=tmp_path)
    assert "read-files-of none" in caught.value.hint
