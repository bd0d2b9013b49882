from __future__ import annotations

import os
from types import SimpleNamespace

import msgspec
import pytest

from digestry.errors import InvalidConfiguration
from digestry.model.platform import Platform, by_preference, possible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", Platform("amd64", "linux")),
        ("linux/arm/v7", Platform("arm", "linux", "v7")),
        ("Linux/X86_64", Platform("amd64", "linux")),
        ("linux/aarch64", Platform("arm64", "linux")),
        ("linux/i386", Platform("386", "linux")),
        ("linux/armhf", Platform("arm", "linux", "v7")),
        ("linux/armhf/v6", Platform("arm", "linux", "v6")),
        ("windows/amd64", Platform("amd64", "windows")),
        ("linux/riscv64/rva20u64", Platform("riscv64", "linux", "rva20u64")),
        ("unknown/unknown", Platform("unknown", "unknown")),
    ],
)
def test_parse(text: str, expected: Platform) -> None:
    assert Platform.parse(text) == expected
    assert Platform.parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", Platform("amd64", "linux")),
        ("arm64", Platform("arm64", "linux")),
        ("aarch64", Platform("arm64", "linux")),
        ("armhf", Platform("arm", "linux", "v7")),
        ("S390X", Platform("s390x", "linux")),
        ("windows(10.0.20348.1)/amd64", Platform("amd64", "windows", None, "10.0.20348.1")),
    ],
)
def test_a_person_may_write_less(text: str, expected: Platform) -> None:
    assert Platform.chosen(text) == expected


@pytest.mark.parametrize("system", ["linux", "Windows"])
def test_a_system_alone_is_of_this_machines_processor(system: str) -> None:
    assert Platform.chosen(system) == msgspec.structs.replace(Platform.of_host(), os=system.lower())


@pytest.mark.parametrize(
    "text", ["", "bogus", "amd64/", "/amd64", "windows()/amd64", "arm64(1)", "windows(1/amd64"]
)
def test_what_a_person_writes_may_be_wrong(text: str) -> None:
    with pytest.raises(InvalidConfiguration) as raised:
        Platform.chosen(text)
    assert repr(text) in raised.value.message


@pytest.mark.parametrize(
    "text",
    ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/amd64/", "lin ux/amd64", "linux/amd64\n", "*/*",
     "linux/\x1b[31m", "\N{KELVIN SIGN}/amd64", "linux/amd64,linux/arm64"],
)  # fmt: skip
def test_a_bad_platform_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidConfiguration) as raised:
        Platform.parse(text)
    assert repr(text) in raised.value.message
    assert "linux/amd64" in raised.value.hint


@pytest.mark.parametrize(
    ("mine", "wanted"),
    [
        (Platform("arm64", "linux", "v8"), Platform("arm64", "linux")),
        (Platform("arm64", "linux", "8"), Platform("arm64", "linux")),
        (Platform("aarch64", "linux"), Platform("arm64", "linux")),
        (Platform("amd64", "linux", "v1"), Platform("amd64", "linux")),
        (Platform("x86_64", "linux"), Platform("amd64", "linux")),
        (Platform("arm", "linux"), Platform("arm", "linux", "v7")),
        (Platform("arm", "linux", "7"), Platform("arm", "linux", "v7")),
        (Platform("armhf", "linux"), Platform("arm", "linux", "v7")),
        # Some tools write the variant that there is not.
        (Platform("amd64", "linux", ""), Platform("amd64", "linux")),
        (Platform("amd64", "linux", os_version="1"), Platform("amd64", "linux")),
    ],
)
def test_one_platform_has_several_spellings(mine: Platform, wanted: Platform) -> None:
    assert str(mine.normalized()) == str(wanted.normalized())


@pytest.mark.parametrize(
    ("mine", "wanted"),
    [
        (Platform("amd64", "linux"), Platform("amd64", "windows")),
        (Platform("amd64", "linux"), Platform("arm64", "linux")),
        (Platform("amd64", "linux", "v3"), Platform("amd64", "linux")),
        (Platform("arm", "linux", "v6"), Platform("arm", "linux", "v7")),
        (Platform("arm64", "linux", "v9"), Platform("arm64", "linux")),
        (Platform("unknown", "unknown"), Platform("amd64", "linux")),
    ],
)
def test_other_platforms_stay_others(mine: Platform, wanted: Platform) -> None:
    assert str(mine.normalized()) != str(wanted.normalized())


def test_normalizing_keeps_the_rest_and_comes_to_rest() -> None:
    platform = Platform("aarch64", "linux", "8", "5.10", ("sve",))
    once = platform.normalized()
    assert once == Platform("arm64", "linux", None, "5.10", ("sve",))
    assert once.normalized() is once


def test_an_empty_variant_is_not_shown() -> None:
    assert str(Platform("amd64", "linux", "")) == "linux/amd64"
    assert str(Platform("arm", "linux", "v7")) == "linux/arm/v7"


def test_the_json_form_has_the_dotted_names() -> None:
    text = b'{"architecture":"amd64","os":"windows","os.version":"10.0","os.features":["win32k"]}'
    platform = msgspec.json.decode(text, type=Platform)
    assert (platform.os_version, platform.os_features) == ("10.0", ("win32k",))
    assert msgspec.json.encode(platform) == text


@pytest.mark.parametrize(
    ("machine", "expected"),
    [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("armv7l", "linux/arm/v7"),
     ("armv6l", "linux/arm/v6"), ("i686", "linux/386"), ("riscv64", "linux/riscv64"),
     ("ppc64le", "linux/ppc64le"), ("s390x", "linux/s390x")],
)  # fmt: skip
def test_the_host_in_gos_names(monkeypatch: pytest.MonkeyPatch, machine: str, expected: str) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    assert str(Platform.of_host()) == expected


def at(*texts: str | None) -> list[Platform | None]:
    return [None if text is None else Platform.parse(text) for text in texts]


@pytest.mark.parametrize(
    ("wanted", "offered", "order"),
    [
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm/v8"], [2, 1, 0]),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], [1]),
        ("linux/arm/v6", ["linux/arm", "linux/arm/v5"], [1, 0]),  # podman takes it; better than nothing
        ("linux/arm64", ["linux/arm/v7", "linux/arm64", "linux/arm/v6"], [1, 0, 2]),
        ("linux/arm64", ["linux/arm64/v9", "linux/arm64/v8"], [1]),
        ("linux/arm64/v9", ["linux/arm64", "linux/arm64/v8.5", "linux/arm64/v9"], [2, 1, 0]),
        ("linux/arm64/v8.2", ["linux/arm64", "linux/arm64/v8.3", "linux/arm64/v8.1"], [2, 0]),
        ("linux/amd64", ["linux/386", "linux/amd64/v2", "linux/amd64"], [2, 0]),
        ("linux/amd64/v4", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/386"], [2, 1, 0, 3]),
        ("linux/amd64/v2", ["linux/amd64/v3"], []),
        ("linux/riscv64/rva20u64", ["linux/riscv64", "linux/riscv64/rva20u64"], [1, 0]),
        ("linux/amd64", ["windows/amd64", None, "unknown/unknown", "linux/arm64"], []),
        ("linux/amd64", ["linux/amd64/v1", "linux/amd64"], [0, 1]),
    ],
)
def test_what_runs_on_a_platform(wanted: str, offered: list[str | None], order: list[int]) -> None:
    assert by_preference(at(*offered), Platform.parse(wanted)) == order


def windows(version: str | None, *features: str) -> Platform:
    return Platform("amd64", "windows", os_version=version, os_features=features or None)


@pytest.mark.parametrize(
    ("host", "offered", "order"),
    [
        ("10.0.20348.2113", ["10.0.17763.1", "10.0.20348.1", "10.0.20348.99"], [2, 1]),
        ("10.0.26100.1", ["10.0.20348.1", "10.0.25398.1", "10.0.17763.1", None], [3, 1, 0]),
        ("10.0.17763.5", ["10.0.20348.1", "10.0.17134.1", "10.0.17763.5000"], [2]),
        ("10.0.20348", ["10.0.20348.7"], [0]),
        ("nonsense", ["10.0.20348.7", "10.0.17763.1"], [0, 1]),
        (None, ["10.0.20348.7", "10.0.17763.1"], [0, 1]),
    ],
)
def test_builds_of_windows(host: str | None, offered: list[str | None], order: list[int]) -> None:
    assert by_preference([windows(version) for version in offered], windows(host)) == order


def test_what_needs_a_feature_comes_last() -> None:
    offered = [windows("10.0.20348.1", "win32k"), windows("10.0.20348.1")]
    assert by_preference(offered, windows("10.0.20348.1")) == [1, 0]
    assert by_preference(offered, windows("10.0.20348.1", "win32k")) == [0, 1]


@pytest.mark.parametrize(
    ("node", "offered", "may_be"),
    [
        # The variant and the level are not known: nothing is guessed.
        ("linux/arm", ["linux/arm/v6", "linux/arm/v7", "linux/arm64"], [0, 1]),
        ("linux/amd64", ["linux/amd64", "linux/amd64/v3", "linux/386"], [0, 1]),
        ("linux/arm64", ["linux/arm64/v8", "linux/arm64/v9", "linux/arm/v7"], [0, 1]),
        # They are: engines agree.
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], [1]),
        ("linux/arm/v7", ["linux/arm/v6", "linux/arm/v7"], [1]),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v3"], [1]),
        ("linux/arm64/v8", ["linux/arm64", "linux/arm64/v9"], [0]),
        # Engines do not: containerd takes a bare arm for v7, podman takes v6 first.
        ("linux/arm/v7", ["linux/arm", "linux/arm/v6"], [0, 1]),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2"], [0, 1]),
        # Alike: one may be compressed in another way.
        ("linux/amd64", ["linux/amd64", "linux/amd64"], [0, 1]),
        # What else the processor runs, only if there is nothing of its own.
        ("linux/amd64", ["linux/386", "linux/arm64"], [0]),
        ("linux/arm64", ["linux/arm/v7", "linux/arm/v6"], [0, 1]),
        # What does not say what it is, only if nothing else says that it is the right one.
        ("linux/amd64", [None, "linux/amd64"], [1]),
        ("linux/amd64", [None, "linux/arm64", None], [0, 2]),
        ("linux/amd64", ["windows/amd64", "unknown/unknown"], []),
        (None, ["linux/amd64", None, "unknown/unknown"], [0, 1]),
    ],
)
def test_what_may_run_on_a_node(node: str | None, offered: list[str | None], may_be: list[int]) -> None:
    if node == "linux/arm":
        platform: Platform | None = Platform("arm", "linux")
    else:
        platform = None if node is None else Platform.parse(node)
    entries = at(*offered)
    assert possible(entries, platform) == may_be


@pytest.mark.parametrize(
    ("build", "offered", "may_be"),
    [
        ("10.0.20348.2113", ["10.0.17763.1", "10.0.20348.1"], [1]),
        ("10.0.20348.2113", ["10.0.20348.1", "10.0.20348.2700"], [1]),
        (None, ["10.0.17763.1", "10.0.20348.1"], [0, 1]),
        ("10.0.26100.1", ["10.0.20348.1", "10.0.25398.1", "10.0.17763.1"], [0, 1]),
        # None should run there: something does, and nobody knows which.
        ("10.0.17763.1", ["10.0.20348.1", "10.0.17134.1"], [0, 1]),
    ],
)
def test_builds_that_may_run_on_a_node(build: str | None, offered: list[str], may_be: list[int]) -> None:
    assert possible([windows(version) for version in offered], windows(build)) == may_be


@pytest.mark.parametrize(
    ("platform", "text"),
    [(Platform(), "?/?"), (Platform("arm64"), "?/arm64"), (Platform("", "linux"), "linux/?")],
)
def test_one_that_does_not_say_what_it_is(platform: Platform, text: str) -> None:
    assert not platform.is_stated
    assert str(platform) == text
    assert by_preference([platform], Platform("arm64", "linux")) == []
