"""The ways in which statements are attached to an image, what they are about, and which are in force."""

from __future__ import annotations

import base64
import datetime
import gzip
import json
from typing import Any

import pytest

from digestry.advisories import attachments, publish
from digestry.advisories.attachments import list_tag
from digestry.advisories.attestation_forms import attestation_tag
from digestry.advisories.statements import Status
from digestry.audit.assessment import Assessment
from digestry.audit.audit import audit
from digestry.audit.findings import ContainerFinding
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.reports import fix_plan, to_csv, to_sarif, to_table
from digestry.audit.reports.grouping import grouped
from digestry.audit.reports.table_layout import TableOptions, plain
from digestry.errors import ProtocolViolation, RemoteNotFound, Unauthorized
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.audit.fakes import HOST, FakeRegistries, FakeRepository, Image, entry
from tests.inventory.fakes import START, Listed, claim, image_id, sighted

APP = f"{HOST}/team/app"
OPENVEX = "https://openvex.dev/ns/v0.2.0"
DSSE = "application/vnd.dsse.envelope.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@pytest.fixture(params=["digestry, at once", "digestry", "plain registry"])
def registries(request: pytest.FixtureRequest) -> FakeRegistries:
    kinds = {"digestry, at once": (True, True), "digestry": (True, False), "plain registry": (False, False)}
    remembers, bulk = kinds[request.param]
    return FakeRegistries(remembers=remembers, bulk=bulk)


@pytest.fixture
def app(registries: FakeRegistries) -> FakeRepository:
    return registries.at(APP)


@pytest.fixture
def image(app: FakeRepository) -> Image:
    return app.image("one", "1")


def purl(digest: Digest, name: str = "app") -> str:
    return f"pkg:oci/{name}@{str(digest).replace(':', '%3A')}"


def said(status: str = "affected", *products: Any, **more: Any) -> dict[str, Any]:
    return {
        "vulnerability": {"name": "CVE-1"}, "products": list(products), "status": status,
        "timestamp": "2026-11-01T00:00:00Z", **more,
    }  # fmt: skip


def openvex(*statements: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "@context": OPENVEX, "@id": f"urn:x:{len(statements)}", "author": "them",
        "timestamp": "2026-11-01T00:00:00Z", "version": 1, "statements": list(statements), **more,
    }  # fmt: skip


def in_toto(predicate: Any, *subjects: Digest, kind: str = OPENVEX) -> dict[str, Any]:
    return {
        "_type": "https://in-toto.io/Statement/v1", "predicateType": kind, "predicate": predicate,
        "subject": [{"name": "x", "digest": {one.algorithm: one.encoded}} for one in subjects],
    }  # fmt: skip


def enveloped(value: Any) -> dict[str, Any]:
    payload = base64.b64encode(json.dumps(value).encode()).decode()
    return {"payloadType": "application/vnd.in-toto+json", "payload": payload, "signatures": [{"sig": "x"}]}


def manifest(app: FakeRepository, *layers: tuple[str, Any], tag: str | None = None, **more: Any) -> Digest:
    """A manifest of documents, each with its media type."""
    app.blobs[Digest.of(b"{}")] = b"{}"
    found = []
    for media_type, value in layers:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        app.blobs[Digest.of(content)] = content
        found.append(entry(media_type, Digest.of(content), len(content)))
    config = more.pop("config", media_types.OCI_EMPTY)
    document = {
        "schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "layers": found,
        "config": entry(config, Digest.of(b"{}"), 2), **more,
    }  # fmt: skip
    return app.put(document, tag)


def hang(app: FakeRepository, on: Digest, value: Any, kind: str = media_types.IN_TOTO, **more: Any) -> Digest:
    subject = entry(media_types.OCI_MANIFEST, on, 1)
    return manifest(app, (kind, value), **{"artifactType": kind, "subject": subject, **more})


def found(registries: FakeRegistries, image: Image, *, digest: Digest | None = None) -> ContainerFinding:
    seen = sighted(f"{APP}:1", claim(digest or image.manifest, APP), image_id(image.config))
    (one,) = audit([Listed(seen)], RegistryQueries(registries)).findings
    return one


def verdict(registries: FakeRegistries, image: Image, *, digest: Digest | None = None) -> Assessment:
    return found(registries, image, digest=digest).assessment


# -- the ways in which something is attached to an image --------------------------------------------


def listed_by_tag(app: FakeRepository, image: Image, value: Any, hint: str | None) -> Digest:
    """A referrer that only the tag that stands in for the list knows, and of which it says ``hint``."""
    digest = manifest(app, (BUNDLE, value), artifactType=BUNDLE)
    more = {} if hint is None else {"artifactType": hint}
    index = {
        "schemaVersion": 2, "mediaType": media_types.OCI_INDEX,
        "manifests": [entry(media_types.OCI_MANIFEST, digest, app.manifests[digest].size, **more)],
    }  # fmt: skip
    app.put(index, list_tag(image.manifest))
    return digest


@pytest.mark.parametrize(
    "hint",
    [None, "", media_types.OCI_EMPTY, media_types.OCI_CONFIG, "application/vnd.cncf.notary.signature",
     "application/vnd.example+json"],
)  # fmt: skip
def test_what_a_list_says_of_a_referrer_is_a_hint(
    registries: FakeRegistries, app: FakeRepository, image: Image, hint: str | None
) -> None:
    bundle = {"mediaType": BUNDLE, "dsseEnvelope": enveloped(in_toto(openvex(said()), image.manifest))}
    listed_by_tag(app, image, bundle, hint)
    assert verdict(registries, image).state == "affected"


def test_the_tag_that_stands_in_for_the_list_must_be_a_list(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    app.point(list_tag(image.manifest), app.image("another").manifest)
    told = verdict(registries, image)
    assert told.state == "unknown"
    assert any(list_tag(image.manifest) in reason for reason in told.reasons)


def test_the_image_itself_at_the_tag_that_stands_in_for_the_list_lists_nothing(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    """``cosign copy`` leaves it there."""
    before = verdict(registries, image)
    app.point(list_tag(image.manifest), image.manifest)
    after = verdict(registries, image)
    assert (after.state, after.reasons) == (before.state, before.reasons)
    assert after.state != "unknown"


def test_cosigns_attestations_are_read_each(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    slsa = enveloped(in_toto({}, image.manifest, kind="https://slsa.dev/provenance/v1"))
    vex = enveloped(in_toto(openvex(said()), image.manifest))
    layers = ((DSSE, slsa), (DSSE, vex))
    manifest(app, *layers, config=media_types.OCI_CONFIG, tag=attestation_tag(image.manifest))
    told = verdict(registries, image)
    assert told.state == "affected"
    assert any("signature was not verified" in reason for reason in told.reasons)


def test_an_attestation_of_buildkit_is_read_for_its_image(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    other = app.image("two")

    def attested(about: Image, status: str) -> dict[str, Any]:
        digest = manifest(app, (media_types.IN_TOTO, in_toto(openvex(said(status)), about.manifest)))
        return entry(
            media_types.OCI_MANIFEST, digest, app.manifests[digest].size,
            platform={"os": "unknown", "architecture": "unknown"},
            annotations={
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": str(about.manifest),
            },
        )  # fmt: skip

    def child(one: Image, architecture: str) -> dict[str, Any]:
        size = app.manifests[one.manifest].size
        platform = {"os": "linux", "architecture": architecture}
        return entry(media_types.OCI_MANIFEST, one.manifest, size, platform=platform)

    children = [child(image, "amd64"), child(other, "arm64")]
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX}
    bad = app.put(index | {"manifests": [*children, attested(image, "affected"), attested(other, "fixed")]})
    assert verdict(registries, image, digest=bad).state == "affected"
    good = app.put(index | {"manifests": [*children, attested(image, "fixed"), attested(other, "affected")]})
    if not registries.remembers:  # of the other index, which holds it too, such a registry knows nothing
        assert verdict(registries, image, digest=good).state == "fixed"


@pytest.mark.parametrize("kind", [DSSE, BUNDLE, "application/vnd.openvex+json", "application/json"])
def test_a_referrer_is_judged_by_what_is_in_it(
    registries: FakeRegistries, app: FakeRepository, image: Image, kind: str
) -> None:
    """Also with the media type that ORAS gives to every file."""
    for layer in (kind, media_types.OCI_LAYER):
        subject = entry(media_types.OCI_MANIFEST, image.manifest, 1)
        manifest(app, (layer, openvex(said(author=layer))), artifactType=kind, subject=subject)
    assert verdict(registries, image).state == "affected"
    assert len(verdict(registries, image).advisories) == 1


def test_a_type_that_its_layer_contradicts_rules_nothing_out(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    digest = manifest(app, (media_types.IN_TOTO, openvex(said())), artifactType="application/spdx+json")
    entries = [entry(media_types.OCI_MANIFEST, digest, app.manifests[digest].size)]
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}
    app.put(index, list_tag(image.manifest))
    assert verdict(registries, image).state == "affected"


@pytest.mark.parametrize(("status", "expected"), [("affected", "affected"), ("fixed", "unknown")])
def test_a_subject_that_is_no_digest_here_could_be_anything(
    registries: FakeRegistries, app: FakeRepository, image: Image, status: str, expected: str
) -> None:
    value = in_toto(openvex(said(status))) | {"subject": [{"digest": {"gitCommit": "0" * 40}}]}
    hang(app, image.manifest, value)
    assert verdict(registries, image).state == expected


# -- other formats ---------------------------------------------------------------------------------


def cyclonedx(state: str | None, ref: str, **more: Any) -> dict[str, Any]:
    analysis = {} if state is None else {"analysis": {"state": state}}
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "vulnerabilities": [{"id": "CVE-1", "affects": [{"ref": ref}], **analysis}], **more,
    }  # fmt: skip


CYCLONEDX = "application/vnd.cyclonedx+json"
COMPONENTS = [{"type": "library", "bom-ref": "curl-1", "name": "curl", "purl": "pkg:deb/debian/curl@8.1"}]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("exploitable", "affected"), ("in_triage", "unknown"), ("resolved", "fixed"), (None, "unknown"),
        ("resolved_with_pedigree", "fixed"), ("false_positive", "not_affected"), ("what", "unknown"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ref", ["", "curl-1", "urn:cdx:0-1/1#curl-1"])
def test_cyclonedx_is_read(state: str | None, expected: str, ref: str) -> None:
    registries = FakeRegistries()
    app = registries.at(APP)
    image = app.image("one", "1")
    bom = cyclonedx(state, ref or purl(image.manifest), components=COMPONENTS)
    wrapped = in_toto(bom, image.manifest, kind="https://cyclonedx.org/bom/v1.6")
    hang(app, image.manifest, bom, CYCLONEDX)
    assert verdict(registries, image).state == expected
    hang(app, image.manifest, wrapped)
    assert verdict(registries, image).state == expected


def test_a_bill_of_materials_without_vulnerabilities_states_nothing(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    bom = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": COMPONENTS}
    hang(app, image.manifest, bom, CYCLONEDX)
    hang(app, image.manifest, {"spdxVersion": "SPDX-2.3"}, "application/spdx+json")
    hang(app, image.manifest, b"\x00" * 8, "text/spdx")
    told = verdict(registries, image)
    assert (told.state, told.reasons) == ("not_assessed", ())


def spdx_3(*kinds: str) -> dict[str, Any]:
    elements = [{"type": kind, "spdxId": f"urn:{number}"} for number, kind in enumerate(kinds)]
    return {
        "@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld",
        "@graph": [{"type": "SpdxDocument"}, *elements],
    }


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (["software_Package"], "not_assessed"),
        (["security_VexAffectedVulnAssessmentRelationship", "security_Vulnerability"], "unknown"),
        (["https://spdx.org/rdf/3.0.1/terms/Security/Vulnerability"], "unknown"),
    ],
)
@pytest.mark.parametrize(
    "how",
    ["application/spdx+json", "https://spdx.dev/Document", "https://spdx.dev/Document/v3.0", "graph alone"],
)
def test_spdx_3_that_speaks_of_vulnerabilities_is_named(
    registries: FakeRegistries, types: list[str], expected: str, how: str
) -> None:
    """It is not read here; SPDX 2 has nothing of the kind."""
    app = registries.at(APP)
    image = app.image("one", "1")
    hang(app, image.manifest, in_toto(openvex(said("fixed")), image.manifest))
    value = spdx_3(*types)
    if how.startswith("https://"):
        said_to_be: dict[str, Any] = {"annotations": {"in-toto.io/predicate-type": how}}
        digest = hang(app, image.manifest, in_toto(value, image.manifest, kind=how), **said_to_be)
    else:
        if how == "graph alone":
            del value["@context"]
        digest = hang(app, image.manifest, value, "application/spdx+json")
    told = verdict(registries, image)
    assert told.state == ("fixed" if expected == "not_assessed" else expected)
    assert any(str(digest) in reason for reason in told.reasons) == (expected == "unknown")


@pytest.mark.parametrize(("value", "expected"), [({"spdxVersion": "SPDX-2.3"}, True), (spdx_3(), False)])
def test_a_large_bill_of_materials_is_no_reason_to_know_nothing(
    registries: FakeRegistries, app: FakeRepository, image: Image, value: dict[str, Any], expected: bool
) -> None:
    content = json.dumps(value).encode() + b" " * attachments.LARGEST_ADVISORY
    hang(app, image.manifest, content, "application/spdx+json")
    assert verdict(registries, image).complete is expected


@pytest.mark.parametrize("affects", [{"ref": "curl-1"}, "curl-1", 7, True])
def test_what_a_vulnerability_affects_is_a_list(
    registries: FakeRegistries, app: FakeRepository, image: Image, affects: Any
) -> None:
    bom = cyclonedx("resolved", "", components=COMPONENTS)
    bom["vulnerabilities"][0]["affects"] = affects
    hang(app, image.manifest, bom, CYCLONEDX)
    assert verdict(registries, image).state == "unknown"


@pytest.mark.parametrize("name", ["vulnerabilities", "v:vulnerabilities"])
@pytest.mark.parametrize("beside", [True, False])
def test_vulnerabilities_inside_of_components_are_not_passed_over(
    registries: FakeRegistries, name: str, beside: bool
) -> None:
    """As the extension of CycloneDX 1.2 has them."""
    app = registries.at(APP)
    image = app.image("one", "1")
    inner = {"name": "x", "components": [{"name": "y", name: [{"id": "CVE-2"}]}]}
    bom = cyclonedx("resolved", purl(image.manifest), components=[inner])
    if not beside:
        del bom["vulnerabilities"]
    digest = hang(app, image.manifest, bom, CYCLONEDX)
    told = verdict(registries, image)
    assert told.state == "unknown"
    assert any(str(digest) in reason for reason in told.reasons)


def test_a_reference_that_leads_nowhere_is_said(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    digest = hang(app, image.manifest, cyclonedx("exploitable", "nothing"), CYCLONEDX)
    told = verdict(registries, image)
    assert told.state == "unknown"
    assert any(str(digest) in reason and "CVE-1" in reason for reason in told.reasons)


def csaf(status: str, product: dict[str, Any]) -> dict[str, Any]:
    return {
        "document": {
            "category": "csaf_vex", "csaf_version": "2.0", "publisher": {"name": "Example"},
            "tracking": {"id": "EX-1", "version": "1", "current_release_date": "2026-11-01T00:00:00Z"},
        },
        "product_tree": {"full_product_names": [{"product_id": "P", **product}]},
        "vulnerabilities": [{"cve": "CVE-1", "product_status": {status: ["P"]}}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "expected"),
    [("known_affected", "affected"), ("fixed", "fixed"), ("known_not_affected", "not_affected"),
     ("under_investigation", "unknown"), ("odd", "unknown")],
)  # fmt: skip
def test_csaf_is_read(
    registries: FakeRegistries, app: FakeRepository, image: Image, status: str, expected: str
) -> None:
    helper = {"product_identification_helper": {"purl": purl(image.manifest)}}
    hang(app, image.manifest, csaf(status, helper), "application/json")
    assert verdict(registries, image).state == expected


def test_a_product_that_csaf_only_names_could_be_this_one(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    hang(app, image.manifest, csaf("known_affected", {"name": "Example Server 2"}), "application/json")
    assert verdict(registries, image).state == "unknown"


# -- what cannot be read --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("application/vnd.example.scan+json", {"results": [{"id": "CVE-2026-1"}]}),
        ("application/sarif+json", {"runs": [{"rules": ["vulnerability"]}]}),
        (media_types.IN_TOTO, in_toto({"scanner": {}}, kind="https://in-toto.io/attestation/vulns/v0.1")),
        ("application/vnd.example", b"\x1f\x8b\x00\xff"),
        ("application/vnd.cyclonedx+xml", b"<bom><vulnerabilities/></bom>"),
        (media_types.IN_TOTO, b"{} {"),
        ("application/vnd.openvex+json", b'{"@context": "https://openvex.dev/ns", "statements": {}}'),
        ("application/vnd.openvex+json", b'{"@context": "https://openvex.dev/ns", "statements": [{}]}'),
    ],
)  # fmt: skip
def test_what_may_speak_of_vulnerabilities_and_is_not_understood_is_named(
    registries: FakeRegistries, app: FakeRepository, image: Image, kind: str, content: Any
) -> None:
    fixed = openvex(said("fixed", purl(image.manifest)))
    hang(app, image.manifest, fixed)
    assert verdict(registries, image).state == "fixed"
    digest = hang(app, image.manifest, content, kind)
    told = verdict(registries, image)
    assert told.state == "unknown"
    assert any(str(digest) in reason for reason in told.reasons)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("application/vnd.cncf.notary.signature", b"\x00\xff"),
        ("application/vnd.dev.cosign.simplesigning.v1+json", {"critical": {"image": {}, "type": "x"}}),
        (BUNDLE, {"mediaType": BUNDLE, "messageSignature": {"signature": "x"}}),
        (media_types.IN_TOTO, in_toto({}, kind="https://slsa.dev/provenance/v1")),
        (media_types.IN_TOTO, in_toto({"spdxVersion": "SPDX-2.3"}, kind="https://spdx.dev/Document")),
        ("application/vnd.example.readme", b"How to start it."),
    ],
)  # fmt: skip
def test_what_is_known_to_state_nothing_is_passed_over(
    registries: FakeRegistries, app: FakeRepository, image: Image, kind: str, content: Any
) -> None:
    hang(app, image.manifest, content, kind)
    told = verdict(registries, image)
    assert (told.state, told.reasons) == ("not_assessed", ())


@pytest.mark.parametrize(
    "error",
    [Unauthorized("not for you", status=403), ProtocolViolation("no list"), RemoteNotFound("x", status=404)],
)
@pytest.mark.parametrize("what", ["referrers", "manifest", "blob"])
def test_what_a_registry_refuses_could_say_anything(
    app: FakeRepository, image: Image, registries: FakeRegistries, what: str, error: Any
) -> None:
    registries.bulk = False  # which tells all of it at once
    fixed = openvex(said("fixed", purl(image.manifest)))
    hang(app, image.manifest, fixed)
    manifest(app, (DSSE, enveloped(in_toto(fixed))), tag=attestation_tag(image.manifest))

    def trouble(reference: Reference, asked: str) -> None:
        if asked == what and (what != "manifest" or registries.remembers):
            raise error

    registries.trouble = trouble
    told = verdict(registries, image)
    refused = what != "manifest" or registries.remembers
    nothing_listed = what == "referrers" and isinstance(error, RemoteNotFound)
    assert told.state == ("unknown" if refused and not nothing_listed else "fixed")


# -- what a statement is about ---------------------------------------------------------------------

OTHER = Digest.of(b"another image")


@pytest.mark.parametrize(
    ("product", "affected", "fixed"),
    [
        # this image
        ("{purl}", "affected", "fixed"),
        ({"@id": "urn:x", "identifiers": {"purl": "{purl}"}}, "affected", "fixed"),
        ({"hashes": {"sha-256": "{hex}"}}, "affected", "fixed"),
        ({"hashes": {"SHA256": "{hex}"}}, "affected", "fixed"),
        ("{digest}", "affected", "fixed"),
        (f"{APP}@{{digest}}", "affected", "fixed"),
        ("elsewhere.example/copy@{digest}", "affected", "fixed"),
        ("pkg:oci/app@{digest}?repository_url=elsewhere.example/copy", "affected", "fixed"),
        (f"pkg:oci/app?repository_url={HOST}%2Fteam%2Fapp", "affected", "fixed"),
        (f"pkg:oci/app?repository_url=https%3A%2F%2F{HOST.upper()}%2Fteam", "affected", "fixed"),
        (f"pkg:docker/team/app?repository_url={HOST}", "affected", "fixed"),
        (f"pkg:oci/app?repository_url={HOST}/team/app&tag=1", "affected", "fixed"),
        (APP, "affected", "fixed"),
        (f"oci://{APP}:1", "affected", "fixed"),
        ("app", "affected", "fixed"),
        ("pkg:oci/app", "affected", "fixed"),
        # a tag that points elsewhere: what is bad counts, what is good may be another image's
        (f"pkg:oci/app?repository_url={HOST}/team/app&tag=7", "affected", "unknown"),
        (f"{APP}:7", "affected", "unknown"),
        # an image for one processor: what is good about it says nothing about another's
        (f"pkg:oci/app?repository_url={HOST}/team/app&arch=amd64", "affected", "fixed"),
        (f"pkg:oci/app?arch=x86_64&repository_url={HOST}/team/app", "affected", "fixed"),
        (f"pkg:oci/app?repository_url={HOST}/team/app&arch=arm64", "affected", "not_assessed"),
        # a package, which this image may have in that version or not
        ("pkg:deb/debian/openssl@3.0.1", "affected", "unknown"),
        ({"@id": "pkg:golang/a/b", "hashes": {"sha-256": OTHER.encoded}}, "affected", "unknown"),
        # another product
        (f"pkg:oci/app@{OTHER}", "not_assessed", "not_assessed"),
        ({"hashes": {"sha-256": OTHER.encoded}}, "not_assessed", "not_assessed"),
        (f"pkg:oci/other?repository_url={HOST}%2Fteam%2Fother", "not_assessed", "not_assessed"),
        ("pkg:oci/app?repository_url=elsewhere.example/team/app", "not_assessed", "not_assessed"),
        (f"{HOST}/team/other", "not_assessed", "not_assessed"),
        (str(OTHER), "not_assessed", "not_assessed"),
        ("other/product", "not_assessed", "not_assessed"),
        # what cannot be told
        ({}, "unknown", "unknown"),
        (7, "unknown", "unknown"),
        ("Example Server 2.0", "unknown", "unknown"),
        ("urn:uuid:1", "unknown", "unknown"),
        ("cpe:2.3:a:example:app:1:*:*:*:*:*:*:*", "unknown", "unknown"),
        ("https://example.org/products/7", "unknown", "unknown"),
        ("pkg:oci/app@sha256:12", "unknown", "unknown"),
        ("pkg:", "unknown", "unknown"),
        ({"hashes": {"md5": "0" * 32}}, "unknown", "unknown"),
        ({"hashes": {"sha-512": "0" * 128}}, "unknown", "unknown"),
    ],
)  # fmt: skip
def test_which_products_are_this_image(product: Any, affected: str, fixed: str) -> None:
    registries = FakeRegistries()
    app = registries.at(APP)
    for status, expected in (("affected", affected), ("fixed", fixed)):
        image = app.image(status, "1")
        text = json.dumps(product).replace("{purl}", purl(image.manifest))
        text = text.replace("{digest}", str(image.manifest)).replace("{hex}", image.manifest.encoded)
        digest = hang(app, image.manifest, openvex(said(status, json.loads(text))))
        told = verdict(registries, image)
        assert told.state == expected
        if expected in {"unknown", "not_assessed"}:
            assert any(str(digest) in reason or "is said of" in reason for reason in told.reasons)


def test_a_statement_about_an_index_that_holds_it_is_about_it(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    index = app.index({"linux/amd64": image})
    hang(app, image.manifest, openvex(said("affected", purl(index))))
    assert verdict(registries, image).state == "affected"


def test_what_hangs_on_a_shared_index_is_only_about_the_image_that_it_names() -> None:
    registries = FakeRegistries()
    app = registries.at(APP)
    one, two = app.image("one"), app.image("two")
    index = app.index({"linux/amd64": one, "linux/arm64": two}, "1")
    hang(app, index, openvex(said("fixed", purl(one.manifest))))
    rows = [
        sighted(f"{APP}:1", claim(image.manifest, APP), image_id(image.config), name=name)
        for name, image in (("one", one), ("two", two))
    ]
    states = {
        row.container.name: row.assessment.state
        for row in audit([Listed(*rows)], RegistryQueries(registries)).findings
    }
    assert states == {"one": "fixed", "two": "not_assessed"}


# -- which statements are in force ------------------------------------------------------------------


def part(image: Image, name: str) -> dict[str, Any]:
    return {"@id": purl(image.manifest), "subcomponents": [{"@id": f"pkg:deb/debian/{name}"}]}


def test_a_newer_statement_on_one_component_hides_none_on_another(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    hang(app, image.manifest, openvex(said("affected", part(image, "openssl"))))
    newer = said("fixed", part(image, "curl"), timestamp="2026-11-02T00:00:00Z")
    hang(app, image.manifest, openvex(newer, author="others"))
    told = verdict(registries, image)
    assert told.state == "affected"
    assert {(one.component, one.statement.status) for one in told.advisories} == {
        ("pkg:deb/debian/openssl", "affected"), ("pkg:deb/debian/curl", "fixed"),
    }  # fmt: skip
    assert any("them says affected of pkg:deb/debian/openssl" in reason for reason in told.reasons)
    assert any("others says fixed of pkg:deb/debian/curl" in reason for reason in told.reasons)
    newest = said("fixed", part(image, "openssl"), timestamp="2026-11-03T00:00:00Z")
    hang(app, image.manifest, openvex(newest))
    assert verdict(registries, image).state == "fixed"


def test_contradictions_of_one_time_are_all_shown(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    for status in ("fixed", "affected", "not_affected"):
        hang(app, image.manifest, openvex(said(status, purl(image.manifest)), author=f"the {status} one"))
    told = verdict(registries, image)
    assert told.state == "affected"
    assert len(told.advisories) == 3
    assert any("the fixed one says fixed" in reason for reason in told.reasons)


@pytest.mark.parametrize("author", ["them", "somebody else"])
def test_a_newer_version_of_a_document_replaces_the_older(
    registries: FakeRegistries, app: FakeRepository, image: Image, author: str
) -> None:
    old = openvex(said("affected", purl(image.manifest)), **{"@id": "urn:the-document"})
    new = openvex(
        said("fixed", purl(image.manifest), vulnerability={"name": "CVE-2"}),
        **{"@id": "urn:the-document", "version": "2", "author": author},
    )
    hang(app, image.manifest, old)
    hang(app, image.manifest, new)
    told = verdict(registries, image)
    assert told.state == ("fixed" if author == "them" else "affected")
    assert any("not in force any more" in reason for reason in told.reasons) == (author == "them")


@pytest.mark.parametrize("status", ["Affected", " AFFECTED ", "affected"])
def test_a_status_is_read_in_any_case(
    registries: FakeRegistries, app: FakeRepository, image: Image, status: str
) -> None:
    hang(app, image.manifest, openvex(said(status)))
    assert verdict(registries, image).state == "affected"


def test_names_of_vulnerabilities_are_compared_in_any_case(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    hang(app, image.manifest, openvex(said("affected")))
    newer = said("fixed", vulnerability={"name": "GHSA-1", "aliases": ["cve-1"]})
    hang(app, image.manifest, openvex(newer | {"timestamp": "2026-11-02T00:00:00Z"}))
    assert verdict(registries, image).state == "fixed"


def test_what_is_dated_in_the_future_hides_nothing(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    hang(app, image.manifest, openvex(said("affected")))
    hang(app, image.manifest, openvex(said("fixed", timestamp="2999-01-01T00:00:00Z")))
    assert verdict(registries, image).state == "affected"


def test_several_documents_in_one_layer_are_all_read(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    one = openvex(said("fixed", purl(image.manifest)))
    two = openvex(said("affected", purl(image.manifest), vulnerability={"name": "CVE-2"}))
    lines = "\n".join(json.dumps(each) for each in (one, two)).encode()
    hang(app, image.manifest, lines)
    assert verdict(registries, image).state == "affected"


def test_documents_that_were_written_one_after_another_are_all_read(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    one = openvex(said("fixed", purl(image.manifest)))
    two = openvex(said("affected", purl(image.manifest), vulnerability={"name": "CVE-2"}))
    hang(app, image.manifest, "\n".join(json.dumps(each, indent=2) for each in (one, two)).encode())
    assert {advisory.statement.status for advisory in verdict(registries, image).advisories} == {
        "affected", "fixed",
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_documents_as_windows_writes_them(
    registries: FakeRegistries, app: FakeRepository, image: Image, encoding: str
) -> None:
    hang(app, image.manifest, json.dumps(openvex(said("affected", purl(image.manifest)))).encode(encoding))
    assert verdict(registries, image).state == "affected"


@pytest.mark.parametrize(
    ("content", "why"),
    [(gzip.compress(b"{}", mtime=0), "gzip"), (b"\xff\xfe{", "UTF-16"), (b"{} {", "JSON")],
    ids=["gzip", "utf-16", "cut"],
)
def test_what_cannot_be_read_is_said_to_be_what_it_is(
    registries: FakeRegistries, app: FakeRepository, image: Image, content: bytes, why: str
) -> None:
    hang(app, image.manifest, content)
    told = verdict(registries, image)
    assert told.state == "unknown"
    assert any(why in reason for reason in told.reasons)


def test_one_vulnerability_of_two_components_is_one_result(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    for name in ("curl", "openssl"):
        hang(app, image.manifest, openvex(said("affected", part(image, name))))
    one = found(registries, image)
    assert len(one.assessment.advisories) == 2
    (group,) = grouped([one], "advisory")
    assert group.findings == (one,)
    report = audit([Listed(one.container)], RegistryQueries(registries))
    (run,) = json.loads("".join(to_sarif.write(report)))["runs"]
    assert [result["ruleId"] for result in run["results"]].count("CVE-1") == 1
    shown = [plain(line) for line in to_table.write(report, TableOptions(whole=True))]
    assert any("CVE-1 (pkg:deb/debian/curl): affected" in line for line in shown)


def test_a_statement_about_another_manifest_with_its_config_is_about_it(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    again = app.image("one", squeezed="zstd")
    hang(app, image.manifest, openvex(said("affected", purl(again.manifest))))
    assert verdict(registries, image).state == "affected"


# -- fixes ------------------------------------------------------------------------------------------


def advise(
    registries: FakeRegistries, status: Status, digest: Digest, *fixes: Digest, cve: str = "CVE-1"
) -> None:
    def target(one: Digest) -> publish.TargetImage:
        return publish.find_image(registries, Reference.parse(f"{APP}@{one}"))

    statement = publish.NewStatement(cve, status, "me", START - datetime.timedelta(days=1), note="x")
    publish.attach_statement(
        registries,
        target(digest),
        statement,
        [target(one) for one in fixes],
        new_queries=lambda: RegistryQueries(registries),
    )


def test_a_fix_that_is_itself_affected_is_none(registries: FakeRegistries, app: FakeRepository) -> None:
    bad, half, good = (app.image(name) for name in ("bad", "half", "good"))
    app.point("1", bad.manifest)
    advise(registries, "affected", bad.manifest, half.manifest)
    advise(registries, "affected", half.manifest, cve="CVE-2")
    one = found(registries, bad)
    assert one.fixed_image is None
    why = f"{APP}@{half.manifest} was named as the fix, but is itself affected by CVE-2"
    assert why in one.action
    assert why in one.reasons
    report = audit([Listed(one.container)], RegistryQueries(registries))
    look = TableOptions(whole=True)
    assert any(why in plain(line) for line in to_table.write(report, look))
    assert any(why in plain(line) for line in fix_plan.write(report))
    assert any(why in line for line in to_csv.write(report))
    advise(registries, "affected", half.manifest, good.manifest, cve="CVE-3")
    one = found(registries, bad)
    assert one.fixed_image is not None
    assert one.fixed_image.digest == good.manifest
    report = audit([Listed(one.container)], RegistryQueries(registries))
    plan = [plain(line) for line in fix_plan.write(report)]
    assert any("was named as the fix" in line for line in plan)
    assert not any(str(half.manifest) in line for line in plan if not line.startswith("#"))


def test_a_fix_of_which_nothing_can_be_known_is_none(registries: FakeRegistries, app: FakeRepository) -> None:
    bad, doubtful = app.image("bad", "1"), app.image("doubtful")
    advise(registries, "affected", bad.manifest, doubtful.manifest)
    digest = hang(app, doubtful.manifest, b"{}")
    one = found(registries, bad)
    assert one.fixed_image is None
    assert str(digest) in one.action


def test_an_index_of_which_one_image_is_affected_is_no_fix(
    registries: FakeRegistries, app: FakeRepository
) -> None:
    bad, one, two = app.image("bad", "1"), app.image("one"), app.image("two")
    index = app.index({"linux/amd64": one, "linux/arm64": two})
    advise(registries, "affected", bad.manifest, index)
    assert found(registries, bad).fixed_image is not None
    advise(registries, "affected", two.manifest, cve="CVE-2")
    assert found(registries, bad).fixed_image is None


def test_fixes_in_a_circle_end(registries: FakeRegistries, app: FakeRepository) -> None:
    one, two, three = (app.image(name) for name in ("one", "two", "three"))
    app.point("1", one.manifest)
    for bad, good in ((one, two), (two, three), (three, one)):
        advise(registries, "affected", bad.manifest, good.manifest)
    # The last word on each is that it fixes another; say the worst again.
    for bad in (one, two, three):
        hang(app, bad.manifest, openvex(said("affected", vulnerability={"name": "CVE-9"})))
    told = found(registries, one)
    assert told.assessment.state == "affected"
    assert told.fixed_image is None


def test_the_same_code_under_another_digest_is_no_fix(
    registries: FakeRegistries, app: FakeRepository
) -> None:
    bad, again = app.image("bad", "1"), app.image("bad", squeezed="zstd")
    target = publish.find_image(registries, Reference.parse(f"{APP}@{bad.manifest}"))
    statement = said("affected", purl(bad.manifest), action_statement=f"Update to {APP}@{again.manifest}.")
    hang(app, target.digest, openvex(statement))
    assert found(registries, bad).fixed_image is None
