"""One image under several host names: which, in which order, and where engines say so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from digestry.audit import engine_mirrors
from digestry.audit.image_names import HUB, Alias, ImageNames, Mirror, OtherName, RepositoryPrefix
from digestry.errors import InvalidConfiguration, InvalidReference
from digestry.model.reference import Reference


def names(*aliases: tuple[str, str], mirrors: tuple[Mirror, ...] = ()) -> ImageNames:
    return ImageNames(
        tuple(Alias(RepositoryPrefix.parse(one), RepositoryPrefix.parse(two)) for one, two in aliases),
        mirrors,
    )


def others(known: ImageNames, name: str) -> list[str]:
    return [other.repository.name for other in known.others(Reference.parse(name))]


def test_places() -> None:
    assert RepositoryPrefix.parse("docker.io") == HUB
    assert RepositoryPrefix.parse("index.docker.io") == HUB
    assert RepositoryPrefix.parse("mirror.internal:5000/dockerhub") == RepositoryPrefix(
        "mirror.internal:5000", "dockerhub"
    )
    assert str(RepositoryPrefix.parse("reg.example/a/b")) == "reg.example/a/b"
    assert str(RepositoryPrefix.parse("docker.io/library")) == "docker.io/library"


@pytest.mark.parametrize(
    "text", ["", "mirror", "https://reg.example", "reg.example/", "reg.example/A", "a b", "reg.example:99999"]
)
def test_no_places(text: str) -> None:
    with pytest.raises(InvalidReference):
        RepositoryPrefix.parse(text)


def test_an_alias_goes_both_ways() -> None:
    known = names(("mirror.internal:5000/dockerhub", "docker.io"), ("old.example", "new.example"))
    assert others(known, "nginx:1") == ["mirror.internal:5000/dockerhub/library/nginx"]
    assert others(known, "mirror.internal:5000/dockerhub/library/nginx:1") == ["docker.io/library/nginx"]
    assert others(known, "mirror.internal:5000/dockerhub/nginx:1") == [
        "docker.io/library/nginx",
        "mirror.internal:5000/dockerhub/library/nginx",
    ]
    assert others(known, "mirror.internal:5000/dockerhubs/nginx") == []
    assert others(known, "mirror.internal:5000/team/app") == []
    assert others(known, "old.example/team/app@sha256:" + "0" * 64) == ["new.example/team/app"]
    assert others(ImageNames(), "nginx") == []


def test_the_original_comes_first_then_aliases_then_mirrors_in_their_order() -> None:
    one, two = RepositoryPrefix("m1.example"), RepositoryPrefix("m2.example", "hub")
    any_mirror = RepositoryPrefix("m3.example")
    known = names(
        ("a.example/hub", "docker.io"), ("b.example", "a.example"),
        mirrors=(Mirror(HUB, one), Mirror(HUB, two, tags=False), Mirror(None, any_mirror)),
    )  # fmt: skip
    assert others(known, "b.example/hub/x/app") == [
        "a.example/hub/x/app",
        "docker.io/x/app",
        "m1.example/x/app",
        "m2.example/hub/x/app",
        "m3.example/hub/x/app",
        "m3.example/x/app",
    ]
    assert known.others(Reference.parse("x/app"))[-2:] == (
        OtherName(Reference.parse("m2.example/hub/x/app"), tags=False),
        OtherName(Reference.parse("m3.example/x/app")),
    )


def test_the_longest_alias_counts_and_circles_end() -> None:
    known = names(("m.example", "a.example"), ("m.example/x", "b.example"))
    assert others(known, "m.example/x/app")[0] == "b.example/app"
    circle = names(("a.example", "b.example"), ("b.example", "a.example"))
    assert others(circle, "a.example/app") == ["b.example/app"]
    long = "x" * 250
    assert others(names(("m.example/dockerhub", "docker.io")), f"docker.io/a/{long}") == []


# -- what engines are set up with ---------------------------------------------------------------


def daemon(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "daemon.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_docker(tmp_path: Path) -> None:
    urls = [
        "https://m1.example", "http://m2.example:5000/", "http://m3.example", "https://[::1]:5000",
        "https://short", "m4.example", "https://m5.example/path", "ftp://m6.example", "https://", "https://x:y",
    ]  # fmt: skip
    found = engine_mirrors.docker_mirrors(daemon(tmp_path, {"debug": True, "registry-mirrors": urls}))
    assert found.mirrors == tuple(
        Mirror(HUB, RepositoryPrefix(host))
        for host in (
            "m1.example",
            "m2.example:5000",
            "m3.example:80",
            "[::1]:5000",
            "short:443",
            "m4.example",
        )
    )
    assert found.plain == {"m2.example:5000", "m3.example:80"}
    assert [problem.source for problem in found.problems] == [str(tmp_path / "daemon.json")] * 4
    assert all("cannot be asked as a registry" in problem.message for problem in found.problems)
    assert engine_mirrors.docker_mirrors(daemon(tmp_path, "")).mirrors == ()
    assert engine_mirrors.docker_mirrors(daemon(tmp_path, {})).mirrors == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{\n"a": }', "line 2: not JSON"), ([], "must be a list"),
        ({"registry-mirrors": "x"}, "must be a list"), ({"registry-mirrors": [1]}, "must be a list"),
        ("[" * 100_000, "nested"),
    ],
)  # fmt: skip
def test_docker_s_file_is_wrong(tmp_path: Path, content: object, says: str) -> None:
    with pytest.raises(InvalidConfiguration, match=says):
        engine_mirrors.docker_mirrors(daemon(tmp_path, content))
    with pytest.raises(InvalidConfiguration, match="No such file"):
        engine_mirrors.docker_mirrors(tmp_path / "none.json")


HUB_HOSTS = """
server = "https://registry-1.docker.io"

[host."https://harbor.example/v2/dockerhub"]
  capabilities = ["pull", "resolve"]
  override_path = true

[host."http://cache.example:5000"]
  capabilities = ["pull"]
  skip_verify = true

[host."https://push.example"]
  capabilities = ["push"]

[host."https://odd.example/somewhere"]
"""


def test_containerd(tmp_path: Path) -> None:
    files = {
        "docker.io": HUB_HOSTS,
        "reg.example_5000_": 'server = "https://real.example:8443"',
        "other.example:5000": '[host."https://other.example:5000"]\n[host."https://m.example/v2"]',
        "_default": '[host."https://any.example"]',
        "not a host": '[host."https://m.example"]',
    }
    for name, text in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "hosts.toml").write_text(text)
    (tmp_path / "empty.example").mkdir()
    found = engine_mirrors.containerd_mirrors(tmp_path)
    assert set(found.mirrors[:-1]) == {
        Mirror(HUB, RepositoryPrefix("harbor.example", "dockerhub")),
        Mirror(HUB, RepositoryPrefix("cache.example:5000"), tags=False),
        Mirror(RepositoryPrefix("reg.example:5000"), RepositoryPrefix("real.example:8443")),
        Mirror(RepositoryPrefix("other.example:5000"), RepositoryPrefix("m.example")),
    }
    assert found.mirrors[-1] == Mirror(None, RepositoryPrefix("any.example"))
    assert found.mirrors.index(
        Mirror(HUB, RepositoryPrefix("harbor.example", "dockerhub"))
    ) < found.mirrors.index(Mirror(HUB, RepositoryPrefix("cache.example:5000"), tags=False))
    assert found.plain == {"cache.example:5000"}
    odd, nameless = sorted((problem.message for problem in found.problems), reverse=True)
    assert nameless.startswith("the directory 'not a host' is no registry: ")
    assert odd.startswith("the mirror 'https://odd.example/somewhere' cannot be asked as a registry: ")
    assert odd.endswith("its API is not at /v2 of its host; it is not asked")


def test_containerd_s_files_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="No such file"):
        engine_mirrors.containerd_mirrors(tmp_path / "none")
    (tmp_path / "docker.io").mkdir()
    (tmp_path / "docker.io" / "hosts.toml").write_text("server = =")
    with pytest.raises(InvalidConfiguration, match=r"hosts\.toml is not valid TOML.*line 1"):
        engine_mirrors.containerd_mirrors(tmp_path)
