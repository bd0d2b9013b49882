"""A pod's container that waits: why, by what kubelets and runtimes say, and what to do about it."""

from __future__ import annotations

import typing

import pytest

from digestry.audit.audit import audit
from digestry.audit.findings import ContainerFinding
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import Unreachable
from digestry.inventory.waiting_reasons import ADVICE, PRESENT, Waiting, waits_for
from tests.audit.fakes import HOST, FakeRegistries
from tests.inventory.fakes import Listed, sighted

APP = f"{HOST}/app"
DENIED = "pull access denied, repository does not exist or may require authorization: server message"
RESOLVING = f'failed to pull and unpack image "{APP}:1": failed to resolve reference "{APP}:1"'


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        # containerd
        (f"rpc error: code = NotFound desc = {RESOLVING}: {APP}:1: not found", "missing"),
        (f"{RESOLVING}: {DENIED}: insufficient_scope: authorization failed", "access"),
        (f"{RESOLVING}: unexpected status from HEAD request to https://r/v2/: 401 Unauthorized", "access"),
        (f'{RESOLVING}: failed to authorize: Post "https://a": dial tcp 10.0.0.9: i/o timeout', "registry"),
        (f'{RESOLVING}: failed to do request: Head "https://r": dial tcp: lookup: no such host', "registry"),
        (f"{RESOLVING}: tls: failed to verify certificate: x509: unknown authority", "registry"),
        (f"{RESOLVING}: http: server gave HTTP response to HTTPS client", "registry"),
        (f"{RESOLVING}: 429 Too Many Requests - Server message: toomanyrequests: rate limit", "limit"),
        (f"{RESOLVING}: no match for platform in manifest: not found", "platform"),
        # cri-o and docker
        ("reading manifest 1 in reg.example/app: manifest unknown", "missing"),
        ("reading manifest 1 in reg.example/app: name unknown: repository name not known", "missing"),
        ("Error response from daemon: manifest for app:1 not found: manifest unknown", "missing"),
        ("no basic auth credentials", "access"),
        ("choosing an image from manifest list: no image found in image index for architecture", "platform"),
        # What tells nothing of the cause, whatever the image is called.
        (f'Back-off pulling image "{APP}:1"', "pull"),
        ('Back-off pulling image "reg.example/unauthorized/not-found:429"', "pull"),
        ("failed to register layer: no space left on device", "pull"),
        ("", "pull"),
        # newer kubelets
        (f'Back-off pulling image "{APP}:1": ErrImagePull: {RESOLVING}: {APP}:1: not found', "missing"),
    ],
)  # fmt: skip
def test_why_an_image_is_not_pulled(message: str, wanted: Waiting) -> None:
    for reason in ("ErrImagePull", "ImagePullBackOff"):
        assert waits_for(reason, message) == wanted


@pytest.mark.parametrize(
    ("reason", "wanted"),
    [
        ("ContainerCreating", "starting"), ("PodInitializing", "starting"), ("InvalidImageName", "name"),
        ("ErrImageNeverPull", "never pulled"), ("CrashLoopBackOff", "crashing"),
        ("CreateContainerConfigError", "configuration"), ("SomethingNew", "other"), ("", "other"),
    ],
)  # fmt: skip
def test_the_kubelets_own_reasons(reason: str, wanted: Waiting) -> None:
    assert waits_for(reason, "manifest unknown") == wanted


def test_there_is_advice_for_each() -> None:
    assert set(ADVICE) == set(typing.get_args(Waiting)) - {""}


def only(registries: FakeRegistries, waiting: Waiting, reference: str = f"{APP}:1") -> ContainerFinding:
    (finding,) = audit([Listed(sighted(reference, waiting=waiting))], RegistryQueries(registries)).findings
    return finding


def test_advice_is_about_what_it_waits_for() -> None:
    registries = FakeRegistries()
    assert only(registries, "missing").action == ADVICE["missing"]
    assert only(registries, "pull").action == ADVICE["pull"]
    registries.at(APP).image("one", "1")
    assert only(registries, "pull").action == PRESENT
    assert only(registries, "starting").action == ADVICE["starting"]
    assert only(registries, "").action.startswith("push its image to a registry")


def test_a_silent_registry_is_not_what_it_waits_for() -> None:
    registries = FakeRegistries()
    registries.fail(HOST, Unreachable("no answer"))
    assert only(registries, "access").action == ADVICE["access"]
    assert only(registries, "").action == "audit again when the registry answers"


def test_two_that_wait_for_other_things_are_told_apart() -> None:
    registries = FakeRegistries()
    seen = [
        sighted(f"{APP}:1", name=waiting, waiting=waiting) for waiting in ("missing", "starting", "missing")
    ]
    report = audit([Listed(*seen)], RegistryQueries(registries))
    assert {(one.container.name, one.action) for one in report.findings} == {
        ("missing", ADVICE["missing"]), ("starting", ADVICE["starting"]),
    }  # fmt: skip
