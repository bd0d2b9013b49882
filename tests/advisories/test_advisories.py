"""OpenVEX: what is written, and what is read of foreign, signed and broken attestations."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

import pytest

from digestry.advisories import attachments, openvex_writer, publish
from digestry.advisories.advisory import AdvisoryReading
from digestry.advisories.documents import decode_documents
from digestry.advisories.statements import Document
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import InvalidConfiguration, NotFound
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.audit.fakes import HOST, FakeRegistries, FakeRepository
from tests.inventory.fakes import START

APP = f"{HOST}/team/app"
REFERENCE = Reference.parse(APP)


@pytest.fixture
def registries() -> FakeRegistries:
    return FakeRegistries()


@pytest.fixture
def app(registries: FakeRegistries) -> FakeRepository:
    return registries.at(APP)


def state(
    registries: FakeRegistries, name: str, *fixed_by: str, **more: Any
) -> list[publish.PublishedAdvisory]:
    values: dict[str, Any] = {
        "vulnerability": "CVE-1",
        "status": "affected",
        "author": "me",
        "timestamp": START,
    } | more
    targets = [publish.find_image(registries, Reference.parse(one)) for one in fixed_by]
    return publish.attach_statement(
        registries,
        publish.find_image(registries, Reference.parse(name)),
        publish.NewStatement(**values),
        targets,
        new_queries=lambda: RegistryQueries(registries),
    )


def read(registries: FakeRegistries, digest: Digest) -> AdvisoryReading:
    return attachments.read_advisories(RegistryQueries(registries), REFERENCE, [digest])


def attestation(digest: Digest, status: str = "affected", **more: Any) -> dict[str, Any]:
    """What vexctl and cosign make."""
    purl = openvex_writer.image_purl(REFERENCE, digest)
    statement = {
        "vulnerability": {"name": "CVE-9"}, "products": [{"@id": purl}],
        "status": status, "action_statement": "upgrade",
    } | more  # fmt: skip
    return {
        "_type": "https://in-toto.io/Statement/v0.1",
        "subject": [{"name": APP, "digest": {"sha256": digest.encoded}}],
        "predicateType": "https://openvex.dev/ns",
        "predicate": {
            "@context": "https://openvex.dev/ns/v0.2.0", "@id": "x", "author": "them",
            "timestamp": "2023-01-08T18:02:03.647787998-06:00", "version": 1, "statements": [statement],
        },
    }  # fmt: skip


def test_the_form_that_scanners_look_for(registries: FakeRegistries, app: FakeRepository) -> None:
    image = app.image("one", "1")
    (written,) = state(registries, f"{APP}:1", note="seen in the logs")
    manifest = app.manifests[written.referrer]
    document = json.loads(manifest.raw)
    assert document["artifactType"] == "application/vnd.in-toto+json"
    assert document["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert document["subject"]["digest"] == str(image.manifest)
    assert document["annotations"]["in-toto.io/predicate-type"] == "https://openvex.dev/ns/v0.2.0"
    assert document["annotations"]["org.opencontainers.image.created"] == "2026-11-21T10:00:00Z"
    (layer,) = document["layers"]
    assert layer["mediaType"] == "application/vnd.in-toto+json"
    assert layer["annotations"]["in-toto.io/predicate-type"] == "https://openvex.dev/ns/v0.2.0"
    statement = json.loads(app.blobs[manifest.layers[0].digest])
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [{"name": APP, "digest": {"sha256": image.manifest.encoded}}]
    predicate = statement["predicate"]
    assert predicate["version"] == 1
    (said,) = predicate["statements"]
    assert said["status_notes"] == "seen in the logs"
    assert said["action_statement"]
    assert said["products"][0]["@id"] == (
        f"pkg:oci/app@sha256%3A{image.manifest.encoded}?repository_url=reg.example%3A5000%2Fteam%2Fapp"
    )


def test_the_purl_of_docker_hub_has_its_long_name() -> None:
    digest = Digest.of(b"")
    assert openvex_writer.image_purl(Reference.parse("nginx"), digest).endswith(
        "=index.docker.io%2Flibrary%2Fnginx"
    )


def test_each_document_holds_all_that_is_in_force(registries: FakeRegistries, app: FakeRepository) -> None:
    image, cure = app.image("one", "1"), app.image("two", "2")
    state(registries, f"{APP}:1", f"{APP}:2")
    state(registries, f"{APP}:1", vulnerability="CVE-2", author="you")
    later = START + datetime.timedelta(days=1)
    state(registries, f"{APP}:1", status="not_affected", note="checked", timestamp=later)
    reading = read(registries, image.manifest)
    newest = max(reading.attached, key=lambda one: one.document.version)
    assert newest.document.version == 3
    assert {(one.vulnerability, one.status) for one in newest.document.statements} == {
        ("CVE-1", "not_affected"), ("CVE-2", "affected"),
    }  # fmt: skip
    current = {one.statement.vulnerability: one for one in reading.current()}
    assert current["CVE-2"].author == "you"  # carried on by somebody else since
    assert current["CVE-1"].statement.impact == "checked"
    (fixed,) = read(registries, cure.manifest).current()
    assert fixed.statement.status == "fixed"


def test_fixed_by_is_read_back(registries: FakeRegistries, app: FakeRepository) -> None:
    image, two, three = app.image("one", "1"), app.image("two", "2"), app.image("three", "3")
    state(registries, f"{APP}:1", f"{APP}:2", f"{APP}@{three.manifest}")
    (one,) = read(registries, image.manifest).current()
    assert one.statement.fixed_by == (
        REFERENCE.with_digest(two.manifest), REFERENCE.with_digest(three.manifest),
    )  # fmt: skip


@pytest.mark.parametrize(
    "action", ["Update to x@sha256:12.", "Update to nothing.", "Please Update to a@sha256:" + "0" * 64 + "."]
)
def test_other_actions_name_no_image(action: str) -> None:
    (document,) = decode_documents(json.dumps(attestation(Digest.of(b""), action_statement=action)).encode())
    assert isinstance(document, Document)
    assert document.statements[0].fixed_by == ()


def test_nothing_is_written_for_what_is_not_there(registries: FakeRegistries, app: FakeRepository) -> None:
    app.image("one", "1")
    before = dict(app.manifests)
    for subject, cure in ((f"{APP}@{Digest.of(b'x')}", f"{APP}:1"), (f"{APP}:1", f"{APP}:9")):
        with pytest.raises(NotFound):
            state(registries, subject, cure)
    assert app.manifests == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "not_affected"},
        {"justification": "component_not_present"},
        {"vulnerability": " "},
    ],
)
def test_what_openvex_does_not_allow(registries: FakeRegistries, app: FakeRepository, wrong: Any) -> None:
    app.image("one", "1")
    with pytest.raises(InvalidConfiguration):
        state(registries, f"{APP}:1", **wrong)
    with pytest.raises(InvalidConfiguration):
        state(registries, f"{APP}:1", f"{APP}:1")


def enveloped(value: dict[str, Any]) -> dict[str, Any]:
    payload = base64.b64encode(json.dumps(value).encode()).decode()
    return {"payloadType": "application/vnd.in-toto+json", "payload": payload, "signatures": [{"sig": "x"}]}


@pytest.mark.parametrize(
    ("kind", "wrap"),
    [
        ("application/vnd.in-toto+json", lambda value: value),
        ("application/vnd.in-toto+json", enveloped),
        ("application/vnd.dsse.envelope.v1+json", enveloped),
        ("application/vnd.dev.sigstore.bundle.v0.3+json", lambda value: {"dsseEnvelope": enveloped(value)}),
        ("application/vnd.openvex", lambda value: value["predicate"]),
    ],
)
def test_foreign_forms_are_read(
    registries: FakeRegistries, app: FakeRepository, kind: str, wrap: Any
) -> None:
    image = app.image("one", "1")
    app.attach(image.manifest, json.dumps(wrap(attestation(image.manifest))).encode(), kind=kind)
    reading = read(registries, image.manifest)
    (one,) = reading.current()
    assert (one.statement.vulnerability, one.statement.status, one.author) == ("CVE-9", "affected", "them")
    assert one.statement.timestamp.isoformat() == "2023-01-09T00:02:03.647787+00:00"
    signed = any("signature was not verified" in reason for reason in reading.reasons)
    assert signed == (wrap(attestation(image.manifest)).keys() <= {"dsseEnvelope", *enveloped({})})


def test_foreign_statements_are_not_stated_again(registries: FakeRegistries, app: FakeRepository) -> None:
    image = app.image("one", "1")
    app.attach(image.manifest, json.dumps(attestation(image.manifest)).encode())
    state(registries, f"{APP}:1")
    newest = max(read(registries, image.manifest).attached, key=lambda one: one.document.version)
    assert [one.vulnerability for one in newest.document.statements] == ["CVE-1"]
    assert len(read(registries, image.manifest).current()) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"", b"nonsense", b"[]", b"{}", b"[" * 100_000, b'{"payload": 5}', b'{"payload": "!!"}',
        b'{"dsseEnvelope": []}', b'{"_type": "https://in-toto.io/Statement/v1"}',
        (b'{"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://openvex.dev/ns",'
        b'"predicate": 1}'),
        b'{"@context": "https://openvex.dev/ns"}', b'\xff', b'{"a": "\\ud800"}',
        b'{"@context": "https://openvex.dev/ns", "statements": [], "statements": []}', b'{} {}', b'[{}, 1]',
    ],
)  # fmt: skip
def test_what_cannot_be_decoded_could_have_said_anything(
    registries: FakeRegistries, app: FakeRepository, content: bytes
) -> None:
    image = app.image("one", "1")
    app.attach(image.manifest, content)
    app.attach(image.manifest, json.dumps(attestation(image.manifest)).encode())
    reading = read(registries, image.manifest)
    assert len(reading.current()) == 1
    assert any("cannot be decoded" in reason for reason in reading.reasons)
    assert not reading.complete


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("2024-05-01t10:00:00z", "2024-05-01T10:00:00+00:00"),
        ("2024-05-01 10:00:00.5+02:00", "2024-05-01T08:00:00.500000+00:00"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59+00:00"),
    ],
)
def test_every_form_of_rfc_3339_is_a_time(
    registries: FakeRegistries, app: FakeRepository, written: str, read_as: str
) -> None:
    image = app.image("one", "1")
    app.attach(image.manifest, json.dumps(attestation(image.manifest, timestamp=written)).encode())
    (one,) = read(registries, image.manifest).current()
    assert one.statement.timestamp.isoformat() == read_as


@pytest.mark.parametrize(
    "fault",
    [
        {"status": "fine"},
        {"vulnerability": {}},
        {"timestamp": "yesterday"},
        {"timestamp": "0001-01-01T00:00:00+10:00"},
    ],
)
def test_a_broken_statement_could_have_said_anything(
    registries: FakeRegistries, app: FakeRepository, fault: dict[str, Any]
) -> None:
    image = app.image("one", "1")
    app.attach(image.manifest, json.dumps(attestation(image.manifest, **fault)).encode())
    reading = read(registries, image.manifest)
    assert reading.current() == []
    assert any("statement 1" in reason for reason in reading.reasons)
    assert not reading.complete


def test_an_advisory_that_is_listed_and_cannot_be_had_is_missed(
    registries: FakeRegistries, app: FakeRepository
) -> None:
    image = app.image("a", "1")
    (written,) = state(registries, f"{APP}:1")
    app.forgotten.add(written.referrer)  # it was deleted since it was listed
    gone = read(registries, image.manifest)
    assert not gone.complete
    assert str(written.referrer) in gone.reasons[0]
    app.forgotten.clear()
    app.damaged.add(written.referrer)
    found = read(registries, image.manifest)
    assert not found.complete
    assert f"the advisory {written.referrer} could not be read" in found.reasons[0]
    assert RegistryQueries(registries).manifest(REFERENCE, written.referrer) is None


def test_other_images_statements_do_not_count(registries: FakeRegistries, app: FakeRepository) -> None:
    image, other = app.image("one", "1"), app.image("two", "2")
    app.attach(image.manifest, json.dumps(attestation(other.manifest)).encode())
    products = [{"@id": openvex_writer.image_purl(REFERENCE, other.manifest)}]
    app.attach(image.manifest, json.dumps(attestation(image.manifest, products=products)).encode())
    assert read(registries, image.manifest).current() == []


def test_other_attestations_are_passed_over_in_silence(
    registries: FakeRegistries, app: FakeRepository
) -> None:
    image = app.image("one", "1")
    sbom = attestation(image.manifest) | {
        "predicateType": "https://spdx.dev/Document",
        "predicate": {"spdxVersion": "SPDX-2.3"},
    }
    app.attach(image.manifest, json.dumps(sbom).encode())
    app.attach(image.manifest, b"huge", **{"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"})
    reading = read(registries, image.manifest)
    assert reading.current() == []
    assert reading.reasons == []


def test_sizes_and_numbers_are_bounded(registries: FakeRegistries, app: FakeRepository) -> None:
    image = app.image("one", "1")
    app.attach(image.manifest, b" " * (attachments.LARGEST_ADVISORY + 1))
    reading = read(registries, image.manifest)
    assert not reading.complete
    for _ in range(attachments.MOST_REFERRERS + 5):
        app.attach(image.manifest, b"{}")
    # One that announces itself is read first, however many others there are.
    announced_predicate_type = {"in-toto.io/predicate-type": "https://openvex.dev/ns/v0.2.0"}
    app.attach(image.manifest, json.dumps(attestation(image.manifest)).encode(), **announced_predicate_type)
    reading = read(registries, image.manifest)
    assert len(reading.current()) == 1
    assert any("only 100 were read" in reason for reason in reading.reasons)


def test_aliases_are_one_vulnerability(registries: FakeRegistries, app: FakeRepository) -> None:
    image = app.image("one", "1")
    aliased = {"name": "GHSA-1", "aliases": ["CVE-9"]}
    app.attach(image.manifest, json.dumps(attestation(image.manifest)).encode())
    app.attach(
        image.manifest,
        json.dumps(
            attestation(image.manifest, "fixed", vulnerability=aliased, timestamp="2024-01-01T00:00:00Z")
        ).encode(),
    )
    (one,) = read(registries, image.manifest).current()
    assert (one.statement.vulnerability, one.statement.status) == ("GHSA-1", "fixed")
