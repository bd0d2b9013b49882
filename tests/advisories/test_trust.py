"""Whose statements count: signatures, hostile envelopes, and the rules of who may state what."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from digestry.advisories import publish
from digestry.advisories.attachments import read_advisories
from digestry.advisories.attestation_forms import SignedForm, Signing, attestation_tag
from digestry.advisories.documents import decode_documents
from digestry.advisories.dsse import MOST_SIGNATURES
from digestry.advisories.public_keys import PublicKey
from digestry.advisories.signatures import Signature
from digestry.advisories.signing_keys import SigningKey
from digestry.advisories.statements import Document, Status
from digestry.advisories.trust import TrustedSigner, TrustPolicy, TrustRule
from digestry.audit.assessment import Assessment
from digestry.audit.audit import audit
from digestry.audit.findings import AuditReport
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.reports import to_csv, to_json, to_junit, to_markdown, to_sarif, to_table
from digestry.audit.reports.table_layout import TableOptions, plain
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.advisories.signed import RECORDED, enveloped, signing_key
from tests.advisories.test_attachments import (
    APP,
    BUNDLE,
    DSSE,
    hang,
    in_toto,
    manifest,
    openvex,
    purl,
    said,
)
from tests.audit.fakes import HOST, FakeRegistries, FakeRepository, Image
from tests.inventory.fakes import START, Listed, claim, image_id, sighted

SECURITY, BUILDERS, STRANGER = "P-256 security", "Ed25519 builders", "P-256 stranger"
REPOSITORY = Reference.parse(APP)


def trusted(name: str, kind: str, *repositories: str) -> TrustedSigner:
    return TrustedSigner(name, (PublicKey(signing_key(kind).public_pem),), repositories)


SIGNERS = (trusted("security", SECURITY), trusted("builders", BUILDERS))
REQUIRED = TrustPolicy(SIGNERS, require_signature=True)
OPTIONAL = TrustPolicy(SIGNERS)


@pytest.fixture(params=[True, False], ids=["digestry", "plain registry"])
def registries(request: pytest.FixtureRequest) -> FakeRegistries:
    return FakeRegistries(remembers=request.param)


@pytest.fixture
def app(registries: FakeRegistries) -> FakeRepository:
    return registries.at(APP)


@pytest.fixture
def image(app: FakeRepository) -> Image:
    return app.image("one", "1")


def report(registries: FakeRegistries, image: Image, trust: TrustPolicy, name: str = APP) -> AuditReport:
    seen = sighted(f"{name}:1", claim(image.manifest, name), image_id(image.config))
    return audit([Listed(seen)], RegistryQueries(registries, trust=trust))


def verdict(registries: FakeRegistries, image: Image, trust: TrustPolicy = REQUIRED) -> Assessment:
    (one,) = report(registries, image, trust).findings
    return one.assessment


def stated(image: Image, status: str = "fixed", **more: Any) -> dict[str, Any]:
    return in_toto(openvex(said(status, **more)), image.manifest)


def key(kind: str = SECURITY) -> SigningKey:
    return signing_key(kind)


# -- what is verified -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "Ed25519", "RSA-2048"])
def test_a_statement_with_the_signature_of_a_trusted_key_counts(
    registries: FakeRegistries, app: FakeRepository, image: Image, kind: str
) -> None:
    hang(app, image.manifest, enveloped(stated(image), signing_key(kind)), DSSE)
    trust = TrustPolicy((trusted("team", kind),), require_signature=True)
    told = verdict(registries, image, trust)
    assert told.state == "fixed"
    assert [one.signature for one in told.advisories] == [Signature("verified", "team")]


def test_an_unsigned_statement_counts_only_if_no_signature_is_required(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    hang(app, image.manifest, stated(image))
    told = verdict(registries, image, OPTIONAL)
    assert (told.state, [one.signature.state for one in told.advisories]) == ("fixed", ["unsigned"])
    told = verdict(registries, image, REQUIRED)
    assert told.state == "not_assessed"
    assert any("needs the signature of a trusted key" in reason for reason in told.reasons)


def test_a_signature_is_not_verified_where_no_key_is_trusted(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    hang(app, image.manifest, enveloped(stated(image), key()), DSSE)
    elsewhere = TrustPolicy((trusted("security", SECURITY, f"{HOST}/other"),))
    told = verdict(registries, image, elsewhere)
    assert (told.state, [one.signature.state for one in told.advisories]) == ("fixed", ["not verified"])
    there = TrustPolicy((trusted("security", SECURITY, f"{HOST}/team"),))
    assert [one.signature.signer for one in verdict(registries, image, there).advisories] == ["security"]


def changed(value: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**value, **more}


def bare(signature: bytes) -> list[dict[str, str]]:
    return [{"sig": base64.b64encode(signature).decode()}]


def payload_of(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


HOSTILE: dict[str, Callable[[Image, Image], Any]] = {
    "unsigned": lambda image, other: stated(image),
    "no signatures": lambda image, other: enveloped(stated(image)),
    "signatures that are none": lambda image, other: enveloped(stated(image), signatures="none"),
    "signatures of other kinds": lambda image, other: enveloped(
        stated(image), signatures=[None, 1, {}, {"sig": None}, {"sig": "%%%"}, {"sig": ""}]
    ),
    "the signature of a stranger": lambda image, other: enveloped(stated(image), key(STRANGER)),
    "a stranger who claims to be the key": lambda image, other: {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": key().hint}},
        "dsseEnvelope": enveloped(stated(image), key(STRANGER)),
    },
    "a stranger who names the key": lambda image, other: changed(
        (value := enveloped(stated(image), key(STRANGER))),
        signatures=[{"keyid": "security", **value["signatures"][0]}],
    ),
    "a stranger who brings the key": lambda image, other: {
        "verificationMaterial": {"publicKey": {"rawBytes": base64.b64encode(b"key").decode()}},
        "dsseEnvelope": enveloped(stated(image), key(STRANGER), publicKey=key(STRANGER).public_pem.decode()),
    },
    "a certificate": lambda image, other: {
        "verificationMaterial": {"certificate": {"rawBytes": "AAAA"}},
        "dsseEnvelope": enveloped(stated(image), key(STRANGER)),
    },
    "no algorithm": lambda image, other: enveloped(
        stated(image), alg="none", signatures=[{"sig": "", "alg": "none"}]
    ),
    "the signature of the payload alone": lambda image, other: changed(
        enveloped(stated(image)), signatures=bare(key().sign(json.dumps(stated(image)).encode()))
    ),
    "another payload": lambda image, other: changed(
        enveloped(stated(image, "affected"), key()), payload=payload_of(stated(image, "fixed"))
    ),
    "another type that was signed": lambda image, other: enveloped(
        stated(image), key(), payload_type="application/json"
    ),
    "another type in place of the signed one": lambda image, other: changed(
        enveloped(stated(image), key(), payload_type="text/plain"), payloadType=media_types.IN_TOTO
    ),
    "no type": lambda image, other: enveloped(stated(image), key(), payload_type=""),
    "a length that moved": lambda image, other: changed(
        enveloped(b" " + json.dumps(stated(image)).encode(), key()),
        payload=payload_of(stated(image)),
        payloadType=media_types.IN_TOTO,
    ),
    "a document that names no image": lambda image, other: enveloped(openvex(said("fixed")), key()),
    "a statement that names no image": lambda image, other: enveloped(in_toto(openvex(said("fixed"))), key()),
    "a statement about another image": lambda image, other: enveloped(stated(other), key()),
    "a statement about another product": lambda image, other: enveloped(
        in_toto(openvex(said("fixed", {"@id": purl(other.manifest)})), image.manifest), key()
    ),
    "an envelope in a statement about this image": lambda image, other: in_toto(
        enveloped(stated(other), key()), image.manifest, kind="https://example.org/wrapped"
    ),
    "an envelope in an envelope of a stranger": lambda image, other: enveloped(
        in_toto(enveloped(stated(other), key()), image.manifest, kind="https://example.org/wrapped"),
        key(STRANGER),
    ),
    "a good signature after too many": lambda image, other: changed(
        (value := enveloped(stated(image), key())),
        signatures=[*bare(b"x") * MOST_SIGNATURES, *value["signatures"]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_envelope_does_not_count(
    registries: FakeRegistries, app: FakeRepository, image: Image, name: str
) -> None:
    value = HOSTILE[name](image, app.image("two", "2"))
    kind = media_types.IN_TOTO if "_type" in value else BUNDLE if "dsseEnvelope" in value else DSSE
    referrer = hang(app, image.manifest, value, kind)
    whole = report(registries, image, REQUIRED)
    (one,) = whole.findings
    assert (one.assessment.state, one.assessment.advisories) == ("not_assessed", ())
    assert any(str(referrer) in reason for reason in one.reasons), one.reasons
    assert not whole.problems


@pytest.mark.parametrize(
    "name",
    [name for name in HOSTILE if name not in {"unsigned", "an envelope in a statement about this image"}],
)
def test_an_invalid_signature_is_never_as_good_as_none(
    registries: FakeRegistries, app: FakeRepository, image: Image, name: str
) -> None:
    value = HOSTILE[name](image, app.image("two", "2"))
    hang(app, image.manifest, value, BUNDLE if "dsseEnvelope" in value else DSSE)
    assert verdict(registries, image, OPTIONAL).state == "not_assessed"


def test_what_is_not_trusted_hides_nothing(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    """Neither by a newer time or version, nor by the name of the author and the document."""
    signed = openvex(said("affected"), version=1)
    later = openvex(said("fixed", timestamp="2026-11-20T00:00:00Z"), version=9)
    hang(app, image.manifest, enveloped(in_toto(signed, image.manifest), key()), DSSE)
    hang(app, image.manifest, in_toto(later, image.manifest))
    hang(app, image.manifest, enveloped(in_toto(later, image.manifest), key(STRANGER)), DSSE)
    told = verdict(registries, image)
    assert (told.state, [one.signature.signer for one in told.advisories]) == ("affected", ["security"])
    # Nor may another signer replace the document of the first, who states the opposite later.
    hang(
        app,
        image.manifest,
        enveloped(in_toto({**later, "statements": []}, image.manifest), key(BUILDERS)),
        DSSE,
    )
    assert verdict(registries, image).state == "affected"


@pytest.mark.parametrize("encode", [base64.standard_b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padded", [True, False])
def test_each_base64_is_read(
    registries: FakeRegistries,
    app: FakeRepository,
    image: Image,
    encode: Callable[[bytes], bytes],
    padded: bool,
) -> None:
    payload = json.dumps(stated(image, notes="\u00fe\u00ff?>~ "), ensure_ascii=False).encode()
    value = enveloped(payload, key(STRANGER), key())
    value["payload"] = encode(payload).decode().rstrip("" if padded else "=")
    for one in value["signatures"]:
        one["sig"] = encode(base64.b64decode(one["sig"])).decode().rstrip("" if padded else "=")
    hang(app, image.manifest, value, DSSE)
    assert [one.signature.signer for one in verdict(registries, image).advisories] == ["security"]


def test_both_versions_of_a_document_at_one_tag(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    layers = [
        (DSSE, enveloped(in_toto(openvex(said(status), version=version), image.manifest), key()))
        for version, status in enumerate(("affected", "fixed"), 1)
    ]
    manifest(app, *layers, config=media_types.OCI_CONFIG, tag=attestation_tag(image.manifest))
    assert verdict(registries, image).state == "fixed"


@pytest.mark.parametrize("name", ["bundle.json", "envelope.json"])
def test_what_cosign_made_is_verified(name: str) -> None:
    content = (RECORDED / name).read_bytes()
    team = TrustedSigner("team", (PublicKey((RECORDED / "cosign.pub").read_bytes()),))
    (document,) = decode_documents(content)
    assert isinstance(document, Document)
    assert TrustPolicy((team,)).verify(document, REPOSITORY) == Signature("verified", "team")
    assert OPTIONAL.verify(document, REPOSITORY).state == "invalid"


# -- who may state what -----------------------------------------------------------------------------


ONLY_SECURITY = TrustPolicy(
    SIGNERS,
    (
        TrustRule((f"{HOST}/team/sandbox",), require_signature=False),
        TrustRule((f"{HOST}/team",), ("fixed", "not_affected"), ("security",)),
    ),
)


@pytest.mark.parametrize(
    ("status", "kind", "counts"),
    [
        ("fixed", SECURITY, True),
        ("fixed", BUILDERS, False),
        ("fixed", None, False),
        ("not_affected", BUILDERS, False),
        ("affected", BUILDERS, True),
        ("affected", None, True),
        ("under_investigation", None, True),
        ("affected", STRANGER, False),
    ],
)
def test_a_rule_says_who_may_state_what(
    registries: FakeRegistries, status: str, kind: str | None, counts: bool
) -> None:
    app = registries.at(APP)
    image = app.image("one", "1")
    value = stated(image, status)
    hang(app, image.manifest, *((value,) if kind is None else (enveloped(value, key(kind)), DSSE)))
    told = verdict(registries, image, ONLY_SECURITY)
    assert [one.statement.status for one in told.advisories] == ([status] if counts else [])
    if not counts and kind != STRANGER:
        words = status.replace("_", " ")
        assert any(f"only security may state {words} of {APP}" in reason for reason in told.reasons)


@pytest.mark.parametrize(
    ("patterns", "fits"),
    [
        ((), True),
        ((HOST,), True),
        ((f"{HOST}/team",), True),
        ((APP,), True),
        ((f"{HOST}/tea",), False),
        ((f"{APP}lication",), False),
        (("another.example", HOST), True),
        (("*.example",), HOST.partition(":")[0].endswith(".example")),
        (("*.elsewhere",), False),
    ],
)
def test_a_rule_is_for_names_that_begin_so(patterns: tuple[str, ...], fits: bool) -> None:
    policy = TrustPolicy((), (TrustRule(patterns, (), ("security",)),))
    assert bool(policy.objection(Signature("unsigned"), "fixed", REPOSITORY)) == fits


def test_the_first_rule_that_fits_decides() -> None:
    sandbox = Reference.parse(f"{HOST}/team/sandbox/x")
    assert not ONLY_SECURITY.objection(Signature("unsigned"), "fixed", sandbox)
    nobody = TrustPolicy(SIGNERS, (TrustRule(statuses=("fixed",), signers=()),))
    assert "only nobody may" in nobody.objection(Signature("verified", "security"), "fixed", sandbox)


def test_what_is_stated_in_another_repository_is_bound_by_the_rules_of_this_one(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    """Who may push the same image to a sandbox must not be able to state there what does not count here."""
    name = f"{HOST}/team/sandbox"
    sandbox = registries.at(name)
    copy = sandbox.image("one", "1")
    assert copy.manifest == image.manifest
    hang(sandbox, copy.manifest, stated(copy))
    here = sighted(f"{APP}:1", claim(image.manifest, APP), image_id(image.config))
    there = sighted(f"{name}:1", claim(copy.manifest, name), image_id(copy.config), name="other")
    found = audit([Listed(here, there)], RegistryQueries(registries, trust=ONLY_SECURITY)).findings
    states = {one.identity.repository.name: one.assessment.state for one in found if one.identity}
    assert states == {APP: "not_assessed", name: "fixed"}
    (bound,) = (one for one in found if one.assessment.state == "not_assessed")
    assert any(name in reason and "only security may" in reason for reason in bound.reasons)


# -- signing ----------------------------------------------------------------------------------------


def attach(
    registries: FakeRegistries, image: Image, vulnerability: str, status: Status = "fixed", **more: Any
) -> Digest:
    (written,) = publish.attach_statement(
        registries,
        publish.find_image(registries, Reference.parse(f"{APP}@{image.manifest}")),
        publish.NewStatement(vulnerability, status, "me", START),
        new_queries=lambda: RegistryQueries(registries),
        **more,
    )
    return written.referrer


def in_force(
    registries: FakeRegistries, image: Image, trust: TrustPolicy = OPTIONAL
) -> list[tuple[str, str]]:
    reading = read_advisories(RegistryQueries(registries, trust=trust), REPOSITORY, [image.manifest])
    return sorted((one.statement.vulnerability, one.signature.signer) for one in reading.current())


@pytest.mark.parametrize("form", ["bundle", "tag"])
def test_a_signed_statement_is_read_back(
    registries: FakeRegistries, app: FakeRepository, image: Image, form: SignedForm
) -> None:
    attach(registries, image, "CVE-1", signing=Signing(key(), form))
    told = verdict(registries, image)
    assert told.state == "fixed"
    assert [one.signature.signer for one in told.advisories] == ["security"]
    assert (attestation_tag(image.manifest) in app.pointers) == (form == "tag")


@pytest.mark.parametrize("form", ["bundle", "tag"])
def test_a_key_signs_nothing_that_it_has_not_signed_before(
    registries: FakeRegistries, app: FakeRepository, image: Image, form: SignedForm
) -> None:
    attach(registries, image, "CVE-UNSIGNED")
    attach(registries, image, "CVE-BUILDERS", signing=Signing(key(BUILDERS), form))
    attach(registries, image, "CVE-1", signing=Signing(key(), form))
    last = attach(registries, image, "CVE-2", signing=Signing(key(), form))
    assert in_force(registries, image) == [
        ("CVE-1", "security"), ("CVE-2", "security"), ("CVE-BUILDERS", "builders"), ("CVE-UNSIGNED", ""),
    ]  # fmt: skip
    reading = read_advisories(RegistryQueries(registries), REPOSITORY, [image.manifest])
    newest = [one.document for one in reading.attached if one.referrer == last][-1]
    assert [one.vulnerability for one in newest.statements] == ["CVE-1", "CVE-2"]
    # What is signed is not repeated without a signature either.
    attach(registries, image, "CVE-3")
    assert ("CVE-1", "") not in in_force(registries, image, TrustPolicy(SIGNERS))


def test_a_tag_keeps_what_others_put_there(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    theirs = (DSSE, enveloped(stated(image, "affected"), key(BUILDERS)))
    tag = attestation_tag(image.manifest)
    assert tag is not None
    first = manifest(app, theirs, config=media_types.OCI_CONFIG, tag=tag, annotations={"their": "own"})
    before = json.loads(app.manifests[first].raw)
    attach(registries, image, "CVE-2", signing=Signing(key(), "tag"))
    after = json.loads(app.manifests[app.pointers[tag]].raw)
    assert after["layers"][:1] == before["layers"]
    assert after["annotations"] == {"their": "own"}
    assert len(after["layers"]) == 2
    assert in_force(registries, image) == [("CVE-1", "builders"), ("CVE-2", "security")]


# -- reports ----------------------------------------------------------------------------------------


def test_every_report_says_what_is_signed(
    registries: FakeRegistries, app: FakeRepository, image: Image
) -> None:
    hang(app, image.manifest, stated(image, "affected"))
    signed = in_toto(openvex(said("affected", vulnerability={"name": "CVE-2"})), image.manifest)
    hang(app, image.manifest, enveloped(signed, key()), DSSE)
    whole = report(registries, image, OPTIONAL)
    texts = {
        "csv": "".join(to_csv.write(whole)),
        "junit": "".join(to_junit.write(whole)),
        "markdown": "".join(to_markdown.write(whole)),
        "sarif": "".join(to_sarif.write(whole)),
        "table": "\n".join(map(plain, to_table.write(whole, TableOptions(width=200)))),
    }
    for name, text in texts.items():
        assert "(unsigned)" in text, name
        assert "(signed by security)" in text, name
    (row,) = json.loads("".join(to_json.write(whole)))["containers"]
    found = {one["id"]: (one["signature"], one["signer"]) for one in row["advisories"]}
    assert found == {"CVE-1": (None, None), "CVE-2": ("verified", "security")}
