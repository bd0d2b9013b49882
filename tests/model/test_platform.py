from __future__ import annotations

import os
from types import SimpleNamespace

import msgspec
import pytest

from digestry.errors import InvalidConfiguration
from digestry.model.platform import Platform


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
    assert mine.satisfies(wanted)
    assert wanted.satisfies(mine)


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
def test_other_platforms_do_not_satisfy(mine: Platform, wanted: Platform) -> None:
    assert not mine.satisfies(wanted)


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
