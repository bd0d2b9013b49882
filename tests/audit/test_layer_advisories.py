"""Advisories on layers and configs: which images they reach, and what is stated of an image itself."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from digestry.advisories import publish
from digestry.advisories.attachments import LARGEST_ADVISORY
from digestry.advisories.statements import Status
from digestry.advisories.subjects import find_subject
from digestry.audit import part_advisories
from digestry.audit.findings import ContainerFinding
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import RemoteError
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.audit.fakes import HOST, FakeRegistries, Image
from tests.audit.test_audit import APP, only, registries, rich, run
from tests.inventory.fakes import START, claim, sighted

__all__ = ["registries", "rich"]  # fixtures

BASE = f"{HOST}/base"
OTHER = f"{HOST}/elsewhere"
BELOW = "the base"
LAYER = Digest.of(BELOW.encode())
HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def together() -> FakeRegistries:
    """A registry that answers about all of its repositories at once."""
    return FakeRegistries(bulk=True)


def state(
    registries: FakeRegistries,
    name: str,
    status: Status,
    *fixed_by: str,
    at: datetime.datetime = START,
    vulnerability: str = "CVE-1",
    components: tuple[str, ...] = (),
) -> None:
    statement = publish.NewStatement(
        vulnerability, status, "sec@example", at, note="because", components=components
    )
    subject, *targets = (find_subject(registries, Reference.parse(one), hint="") for one in (name, *fixed_by))
    publish.attach_statement(
        registries, subject, statement, targets, new_queries=lambda: RegistryQueries(registries)
    )


def of(registries: FakeRegistries, image: Image, name: str = APP) -> ContainerFinding:
    return only(registries, sighted(f"{name}:1", claim(image.manifest, name)))


def layers(finding: ContainerFinding) -> list[Digest]:
    return [one.part.digest for one in finding.assessment.advisories if one.part is not None]


def document(status: str, product: str, *, version: int = 1, at: str = "2026-11-21T10:00:00Z") -> bytes:
    """An OpenVEX document of another tool."""
    return json.dumps(
        {
            "@context": "https://openvex.dev/ns/v0.2.0", "@id": "urn:x", "author": "them",
            "timestamp": at, "version": version,
            "statements": [
                {
                    "vulnerability": {"name": "CVE-1"}, "status": status,
                    "products": [{"@id": product}],
                }
            ],
        }
    ).encode()  # fmt: skip


# -- what is reached ------------------------------------------------------------------------


def test_an_image_with_the_layer_is_affected(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    one, other = app.image("one", "1", below=[BELOW]), app.image("other", "2", below=["good"])
    state(registries, f"{APP}@{LAYER}", "affected")
    found = of(registries, one)
    assert found.assessment.state == "affected"
    (stated,) = found.assessment.advisories
    assert stated.part is not None
    assert (stated.part.kind, stated.part.digest, stated.part.made_by) == ("layer", LAYER, f"ADD {BELOW}")
    assert of(registries, other).assessment.state == "not_assessed"


def test_children_in_other_repositories_are_affected_too(together: FakeRegistries) -> None:
    base = together.at(BASE).image(BELOW.removesuffix(" gzip"), "12", squeezed="")
    bottom = together.at(BASE).manifests[base.manifest].layers[0].digest
    below = together.at(BASE).blobs[bottom].decode()
    middle = together.at(OTHER).image("tools", "1", below=[below])
    child = together.at(APP).image("one", "1", below=[below, "tools gzip"])
    state(together, f"{BASE}@{bottom}", "affected")
    for image, name in ((base, BASE), (middle, OTHER), (child, APP)):
        found = of(together, image, name)
        assert found.assessment.state == "affected"
        (stated,) = found.assessment.advisories
        assert stated.part is not None
        assert str(stated.part.base) == f"{BASE}:12@{base.manifest}"
        assert stated.repository.name == BASE


def test_a_layer_of_one_platform_is_of_that_alone(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    amd, arm = app.image("one amd", below=[BELOW]), app.image("one arm", below=["arm base"])
    index = app.index({"linux/amd64": amd, "linux/arm64": arm}, "1")
    state(registries, f"{APP}@{LAYER}", "affected")
    states = {
        image.config: only(
            registries, sighted(f"{APP}:1", claim(index, APP), claim(image.manifest, APP))
        ).assessment.state
        for image in (amd, arm)
    }
    assert states[amd.config] == "affected"


def test_an_image_that_may_run_is_looked_into(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    children = {"linux/amd64": app.image("amd", below=[BELOW]), "linux/arm64": app.image("arm")}
    index = app.index(children, "1")
    state(registries, f"{APP}@{LAYER}", "affected")
    found = only(registries, sighted(f"{APP}:1", claim(index, APP), platform=None))
    assert found.assessment.state == "unknown"
    assert any("CVE-1 affects" in reason and "may be what runs" in reason for reason in found.reasons)


def test_the_same_config_with_other_layers_is_the_same_code(together: FakeRegistries) -> None:
    """A manifest whose layers were compressed anew, in another repository that runs, too."""
    one = together.at(APP).image("one", "1", below=[BELOW])
    other = together.at(OTHER).image("one", "1", below=[BELOW])
    anew = together.at(OTHER).manifests[other.manifest]
    body = json.loads(anew.raw)
    body["layers"][0]["digest"] = str(Digest.of(b"compressed anew"))
    squeezed = together.at(OTHER).put(body, "1")
    state(together, f"{APP}@{LAYER}", "affected")
    report = run(
        together,
        sighted(f"{APP}:1", claim(one.manifest, APP), name="a"),
        sighted(f"{OTHER}:1", claim(squeezed, OTHER), name="b"),
    )
    assert [finding.assessment.state for finding in report.findings] == ["affected"] * 2


# -- what is stated of the image itself ---------------------------------------------------------


@pytest.mark.parametrize("status", ["fixed", "not_affected"])
def test_a_good_layer_makes_no_image_good(registries: FakeRegistries, status: Status) -> None:
    one = registries.at(APP).image("one", "1", below=[BELOW])
    state(registries, f"{APP}@{LAYER}", status)
    assert of(registries, one).assessment.state == "not_assessed"
    state(registries, f"{APP}@{one.manifest}", "affected", at=START - HOUR)
    assert of(registries, one).assessment.state == "affected"


@pytest.mark.parametrize(
    ("status", "hours", "judged"),
    [
        ("not_affected", 1, "not_affected"),
        ("fixed", 1, "fixed"),
        ("under_investigation", 1, "unknown"),
        ("not_affected", -1, "affected"),
        ("fixed", -1, "affected"),
    ],
)
def test_the_newer_statement_about_the_image_counts(
    registries: FakeRegistries, status: Status, hours: int, judged: str
) -> None:
    one = registries.at(APP).image("one", "1", below=[BELOW])
    state(registries, f"{APP}@{LAYER}", "affected")
    state(registries, f"{APP}@{one.manifest}", status, at=START + hours * HOUR)
    assert of(registries, one).assessment.state == judged


def test_a_statement_about_a_component_is_no_word_on_the_rest(registries: FakeRegistries) -> None:
    one = registries.at(APP).image("one", "1", below=[BELOW])
    state(
        registries, f"{APP}@{LAYER}", "affected", components=("pkg:deb/debian/curl@7", "pkg:deb/debian/xz@5")
    )
    state(
        registries, f"{APP}@{one.manifest}", "not_affected", at=START + HOUR,
        components=("pkg:deb/debian/curl@7",),
    )  # fmt: skip
    found = of(registries, one)
    assert found.assessment.state == "affected"
    bad = [one for one in found.assessment.advisories if one.statement.status == "affected"]
    assert [advisory.component for advisory in bad] == ["pkg:deb/debian/xz@5"]


def test_a_newer_statement_about_the_layer_counts_in_its_repository(together: FakeRegistries) -> None:
    together.at(BASE).image("base", "12", below=[BELOW])
    together.at(OTHER).image("other", "1", below=[BELOW])
    one = together.at(APP).image("one", "1", below=[BELOW])
    state(together, f"{BASE}@{LAYER}", "affected")
    # Others cannot end what was stated there.
    state(together, f"{OTHER}@{LAYER}", "not_affected", at=START + HOUR)
    assert of(together, one).assessment.state == "affected"
    state(together, f"{BASE}@{LAYER}", "not_affected", at=START + HOUR)
    assert of(together, one).assessment.state == "not_assessed"


def test_statements_about_other_vulnerabilities_stay(registries: FakeRegistries) -> None:
    one = registries.at(APP).image("one", "1", below=[BELOW])
    state(registries, f"{APP}@{LAYER}", "affected")
    state(registries, f"{APP}@{LAYER}", "under_investigation", vulnerability="CVE-2")
    state(registries, f"{APP}@{one.manifest}", "fixed", at=START + HOUR)
    found = of(registries, one)
    assert found.assessment.state == "unknown"
    assert "CVE-2 is under investigation" in found.reasons


# -- configs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["affected", "fixed", "not_affected"])
def test_a_config_is_the_image(registries: FakeRegistries, status: Status) -> None:
    one = registries.at(APP).image("one", "1")
    state(registries, f"{APP}@{one.config}", status)
    assert of(registries, one).assessment.state == status


def test_only_bad_words_on_a_config_come_from_elsewhere(together: FakeRegistries) -> None:
    one = together.at(APP).image("one", "1")
    together.at(OTHER).image("one", "1")
    state(together, f"{OTHER}@{one.config}", "fixed")
    assert of(together, one).assessment.state == "not_assessed"
    state(together, f"{OTHER}@{one.config}", "affected", at=START + HOUR)
    found = of(together, one)
    assert found.assessment.state == "affected"
    assert layers(found) == [one.config]


# -- the way out --------------------------------------------------------------------------------


def test_a_newer_image_of_the_tag_without_the_layer(rich: FakeRegistries) -> None:
    app = rich.at(APP)
    one = app.image("one", "1", below=[BELOW])
    state(rich, f"{APP}@{LAYER}", "affected")
    new = app.image("two", "1", below=["new base"])
    found = of(rich, one)
    assert str(found.fixed_image) == f"{APP}@{new.manifest}"
    assert found.action == f"restart from {APP}@{new.manifest}"
    assert any("which does not have the layer" in reason for reason in found.reasons)


def test_a_newer_tag_without_the_layer(rich: FakeRegistries) -> None:
    app = rich.at(APP)
    app.image("before", "0", below=["older base"])
    one = app.image("one", "1", below=[BELOW])
    app.image("two", "2", below=[BELOW])
    good = app.image("three", "3", below=["new base"])
    state(rich, f"{APP}@{LAYER}", "affected")
    assert str(of(rich, one).fixed_image) == f"{APP}@{good.manifest}"


def test_the_base_to_build_on_anew(registries: FakeRegistries) -> None:
    one = registries.at(APP).image("one", "1", below=[BELOW])
    base = registries.at(BASE).image("new base", "12")
    state(registries, f"{APP}@{LAYER}", "affected", f"{BASE}:12")
    found = of(registries, one)
    assert found.fixed_image is None
    assert found.bases == (Reference.parse(f"{BASE}@{base.manifest}"),)
    assert f"rebuild it on {BASE}@{base.manifest}" in found.action


def test_a_layer_that_is_fixed_by_another_layer(rich: FakeRegistries) -> None:
    one = rich.at(APP).image("one", "1", below=[BELOW])
    base = rich.at(BASE).image("new base", "12")
    new = rich.at(BASE).manifests[base.manifest].layers[0].digest
    state(rich, f"{APP}@{LAYER}", "affected", f"{BASE}@{new}")
    assert of(rich, one).bases == (Reference.parse(f"{BASE}:12@{base.manifest}"),)


def test_a_fix_with_the_bad_layer_is_none(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    one, two = app.image("one", "1"), app.image("two", "2", below=[BELOW])
    state(registries, f"{APP}@{one.manifest}", "affected", f"{APP}:2")
    state(registries, f"{APP}@{LAYER}", "affected", vulnerability="CVE-2")
    found = of(registries, one)
    assert found.fixed_image is None
    assert any(str(two.manifest) in reason and "is itself affected" in reason for reason in found.refused)


# -- what others attach, and what cannot be read ------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"{", b'{"@context": "https://openvex.dev/ns/v0.2.0"}', b" " * (LARGEST_ADVISORY + 1)],
    ids=["not JSON", "no statements", "enormous"],
)
def test_what_cannot_be_read_is_said(registries: FakeRegistries, content: bytes) -> None:
    app = registries.at(APP)
    one = app.image("one", "1", below=[BELOW])
    state(registries, f"{APP}@{one.manifest}", "fixed")
    app.attach(LAYER, content)
    found = of(registries, one)
    assert found.assessment.state == "unknown"
    assert any(f"on the layer {LAYER}" in reason for reason in found.reasons)


def test_another_product_is_passed_over(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    one = app.image("one", "1", below=[BELOW])
    app.attach(LAYER, document("affected", f"pkg:oci/other@{Digest.of(b'other')}"))
    assert of(registries, one).assessment.state == "not_assessed"


def test_only_the_last_version_of_a_document_counts(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    one = app.image("one", "1", below=[BELOW])
    app.attach(LAYER, document("affected", f"pkg:oci/base@{LAYER}"))
    assert of(registries, one).assessment.state == "affected"
    app.attach(LAYER, document("fixed", f"pkg:oci/base@{LAYER}", version=2))
    assert of(registries, one).assessment.state == "not_assessed"


LAYER_PRODUCT = f"pkg:oci/base@{LAYER}"


@pytest.mark.parametrize("first", ["layer", "image"])
def test_a_newer_version_replaces_the_older_one_on_the_layer_and_on_the_image(
    registries: FakeRegistries, first: str
) -> None:
    """One document, by its ``@id`` and author: its versions may be attached to the image or to a layer."""
    app = registries.at(APP)
    one = app.image("one", "1", below=[BELOW])
    places = {
        "layer": (LAYER, LAYER_PRODUCT),
        "image": (one.manifest, f"pkg:oci/one@{one.manifest}"),
    }
    subject, product = places.pop(first)
    old = app.attach(subject, document("affected", product))
    assert of(registries, one).assessment.state == "affected"
    ((subject, product),) = places.values()
    app.attach(subject, document("not_affected", product, version=2))
    found = of(registries, one).assessment
    assert found.state == ("not_affected" if first == "layer" else "not_assessed")
    assert any(f"{old} is version 1" in reason for reason in found.reasons), found.reasons


def test_of_one_version_the_later_one_counts(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    one = app.image("one", "1", below=[BELOW])
    app.attach(one.manifest, document("affected", f"pkg:oci/one@{one.manifest}"))
    app.attach(LAYER, document("under_investigation", LAYER_PRODUCT, at="2026-11-21T11:00:00Z"))
    assert of(registries, one).assessment.state == "unknown"


def test_a_version_in_another_repository_replaces_nothing_unless_it_is_signed(
    together: FakeRegistries,
) -> None:
    together.at(BASE).image("base", "12", below=[BELOW])
    one = together.at(APP).image("one", "1", below=[BELOW])
    together.at(BASE).attach(LAYER, document("affected", LAYER_PRODUCT))
    together.at(APP).attach(LAYER, document("fixed", LAYER_PRODUCT, version=2))
    assert of(together, one).assessment.state == "affected"


def test_versions_of_csaf_have_several_numbers(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    one = app.image("one", "1", below=[BELOW])

    def csaf(version: str, status: str) -> bytes:
        helper = {"purl": LAYER_PRODUCT}
        product = {"product_id": "p", "name": "base", "product_identification_helper": helper}
        tracking = {"id": "CSAF-1", "version": version, "current_release_date": "2026-11-21T10:00:00Z"}
        return json.dumps(
            {
                "document": {"csaf_version": "2.0", "publisher": {"name": "them"}, "tracking": tracking},
                "product_tree": {"full_product_names": [product]},
                "vulnerabilities": [{"cve": "CVE-1", "product_status": {status: ["p"]}}],
            }
        ).encode()

    app.attach(LAYER, csaf("1.2.0", "known_affected"))
    assert of(registries, one).assessment.state == "affected"
    app.attach(LAYER, csaf("1.10.0", "fixed"))
    assert of(registries, one).assessment.state == "not_assessed"
    app.attach(LAYER, csaf("1.3.0", "known_affected"))
    assert of(registries, one).assessment.state == "not_assessed"


def test_contradictions_of_one_time_are_said(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    one = app.image("one", "1", below=[BELOW])
    state(registries, f"{APP}@{LAYER}", "affected")
    state(registries, f"{APP}@{one.manifest}", "not_affected")
    found = of(registries, one)
    assert found.assessment.state == "affected"
    assert any("the worst, affected, is believed" in reason for reason in found.reasons)


# -- registries without bulk answers ------------------------------------------------------------


def test_more_layers_than_are_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = FakeRegistries(remembers=False)
    monkeypatch.setattr(part_advisories, "MOST_QUESTIONS", 2)
    one = plain.at(APP).image("one", "1", below=["a", "b", "c"])
    state(plain, f"{APP}@{one.manifest}", "fixed")
    found = of(plain, one)
    assert found.assessment.state == "unknown"
    assert any("about 3 parts of" in reason for reason in found.reasons)


def test_a_registry_that_does_not_answer_about_layers() -> None:
    plain = FakeRegistries(remembers=False)
    one = plain.at(APP).image("one", "1", below=[BELOW])
    state(plain, f"{APP}@{one.manifest}", "fixed")

    def trouble(reference: Reference, what: str) -> None:
        if what == "referrers" and plain.asked["referrers", APP, str(LAYER)]:
            raise RemoteError("it is broken")

    plain.trouble = trouble
    found = of(plain, one)
    assert found.assessment.state == "unknown"
    assert any("it is broken" in reason for reason in found.reasons)


def test_a_shared_layer_is_asked_about_once() -> None:
    plain = FakeRegistries(remembers=False)
    app = plain.at(APP)
    images = [app.image(str(number), str(number), below=[BELOW]) for number in range(20)]
    seen: list[Any] = [
        sighted(f"{APP}:{number}", claim(image.manifest, APP), name=str(number))
        for number, image in enumerate(images)
    ]
    run(plain, *seen)
    assert plain.asked["referrers", APP, str(LAYER)] == 1
