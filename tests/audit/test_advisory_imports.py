"""What an import states, and about which images: by digest, by package URL, by name."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from digestry.advisories import importing, publish
from digestry.advisories.statements import Document
from digestry.audit.advisory_imports import ImportFile, ImportPlan, ImportPlanner
from digestry.audit.named_images import ImageFinder
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import Unreachable
from digestry.model.digest import Digest
from digestry.model.history import TagSpan
from digestry.model.reference import Reference
from tests.advisories.test_scanner_reports import PURL, openssl, trivy
from tests.audit.fakes import HOST, FakeRegistries, Image
from tests.inventory.fakes import START

APP = f"{HOST}/team/app"
NOW = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)


@pytest.fixture(params=[True, False], ids=["remembers", "plain"])
def registries(request: pytest.FixtureRequest) -> FakeRegistries:
    return FakeRegistries(remembers=request.param)


@pytest.fixture
def image(registries: FakeRegistries) -> Image:
    return registries.at(APP).image("one", "1")


def plan(
    registries: FakeRegistries, *files: dict[str, Any], only: str = "", severity: str = "", author: str = ""
) -> ImportPlan:
    def everywhere(digest: Digest) -> list[TagSpan] | None:
        if not registries.remembers:
            return None
        spans = registries.at(APP).tags_for_digest(digest) or []
        return [TagSpan(one.tag, one.digest, one.since, one.still, repository="team/app") for one in spans]

    queries = RegistryQueries(registries)
    target = publish.find_image(registries, Reference.parse(only)) if only else None
    planner = ImportPlanner(queries, ImageFinder(queries, HOST, everywhere), target)
    documents = [
        ImportFile(f"file {number}", one)
        for number, value in enumerate(files, 1)
        for one in importing.read_file(json.dumps(value).encode())
        if isinstance(one, Document)
    ]
    return planner.plan(documents, severity=severity, author=author, now=NOW)


def report(image: Image, *findings: dict[str, Any], names: tuple[str, ...] = (APP,)) -> dict[str, Any]:
    metadata = {"ImageID": str(image.config), "RepoDigests": [f"{one}@{image.manifest}" for one in names]}
    return trivy(*(findings or (openssl(),)), Metadata=metadata, ArtifactName="")


def attach(registries: FakeRegistries, found: ImportPlan) -> None:
    for one in found.images:
        publish.attach_statements(
            registries,
            publish.find_image(registries, one.image),
            one.new,
            new_queries=lambda: RegistryQueries(registries),
        )


def state(registries: FakeRegistries, **more: Any) -> None:
    values: dict[str, Any] = {
        "vulnerability": "CVE-1", "status": "not_affected", "author": "me", "timestamp": START,
        "justification": "component_not_present",
    } | more  # fmt: skip
    publish.attach_statement(
        registries,
        publish.find_image(registries, Reference.parse(f"{APP}:1")),
        publish.NewStatement(**values),
        new_queries=lambda: RegistryQueries(registries),
    )


def test_a_report_is_about_the_image_that_was_scanned(registries: FakeRegistries, image: Image) -> None:
    found = plan(registries, report(image))
    (one,) = found.images
    assert str(one.image) == f"{APP}@{image.manifest}"
    (new,) = one.new
    assert (new.vulnerability, new.status, new.author) == ("CVE-1", "affected", "Trivy 0.74.0")
    assert new.components == (PURL,)
    assert not found.unmatched


def test_a_mark_before_the_document_is_ignored(image: Image) -> None:
    content = b"\xef\xbb\xbf" + json.dumps(report(image, openssl())).encode()
    (found,) = importing.read_file(content)
    assert isinstance(found, Document)


def test_of_an_index_the_platform_that_was_scanned_is_meant(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    amd, arm = app.image("amd"), app.image("arm")
    index = app.index({"linux/amd64": amd, "linux/arm64": arm}, "1")
    found = plan(registries, report(Image(index, arm.config)))
    assert [one.image.digest for one in found.images] == [arm.manifest]


def test_an_image_that_no_tag_points_to_any_more_is_found(registries: FakeRegistries, image: Image) -> None:
    registries.at(APP).image("two", "1")
    assert [one.image.digest for one in plan(registries, report(image)).images] == [image.manifest]


def test_a_config_alone_is_found_where_the_registry_knows_who_has_it(
    registries: FakeRegistries, image: Image
) -> None:
    found = plan(registries, report(image, names=()))
    if registries.remembers:
        assert [one.image.digest for one in found.images] == [image.manifest]
    else:
        assert not found.matched
        (lost,) = found.unmatched
        assert "cannot say which other repository has it" in lost.reason


def test_a_name_with_a_tag_is_what_it_points_to_now(registries: FakeRegistries, image: Image) -> None:
    found = plan(registries, trivy(openssl(), Metadata={}, ArtifactName=f"{APP}:1"))
    assert [one.image.digest for one in found.images] == [image.manifest]


def csaf(purl: str, *others: str, status: str = "known_affected", name: str = "app") -> dict[str, Any]:
    products = {"P": purl, **{f"P{number}": other for number, other in enumerate(others)}}
    return {
        "document": {
            "category": "csaf_vex", "csaf_version": "2.0",
            "publisher": {"name": "Example", "namespace": "https://www.suse.com/"},
            "tracking": {"id": "EX-1", "version": "1", "current_release_date": "2026-11-01T00:00:00Z"},
        },
        "product_tree": {
            "full_product_names": [
                {
                    "product_id": key, "name": name,
                    **({"product_identification_helper": {"purl": one}} if one else {}),
                }
                for key, one in products.items()
            ]
        },
        "vulnerabilities": [{"cve": "CVE-1", "product_status": {status: list(products)}}],
    }  # fmt: skip


def test_a_package_url_without_a_version_is_every_tag_of_a_repository_of_the_registry(
    registries: FakeRegistries, image: Image
) -> None:
    other = registries.at(APP).image("two", "2")
    found = plan(registries, csaf(f"pkg:oci/app?repository_url={APP}&arch=amd64"))
    assert {one.image.digest for one in found.images} == {image.manifest, other.manifest}
    assert all(one.new[0].status == "affected" for one in found.images)
    (lost,) = plan(registries, csaf(f"pkg:oci/other?repository_url={HOST}/team/other")).unmatched
    assert "it has no tags" in lost.reason
    (lost,) = plan(registries, csaf("pkg:oci/app?repository_url=registry.redhat.io/app")).unmatched
    assert "neither a tag nor a digest is named" in lost.reason  # no other registry is listed


def test_of_many_products_the_one_of_the_repository_is_about_the_image_that_is_given(
    registries: FakeRegistries, image: Image
) -> None:
    value = csaf(f"pkg:oci/app?repository_url={APP}", "pkg:oci/x?repository_url=registry.redhat.io/x")
    found = plan(registries, value, only=f"{APP}:1")
    assert [one.image.digest for one in found.images] == [image.manifest]
    (lost,) = found.unmatched
    assert "pkg:oci/x" in lost.product


def test_an_image_of_suse_is_asked_about_at_its_registry(registries: FakeRegistries) -> None:
    image = registries.at("registry.suse.com/bci/bci-base").image("base", "15.6")
    found = plan(registries, csaf("", name="Container bci/bci-base:15.6"))
    assert [one.image.digest for one in found.images] == [image.manifest]
    assert found.images[0].image.host == "registry.suse.com"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"{APP}:9", "there is no such tag"),
        (APP, "neither a tag nor a digest is named"),
        ("cpe:2.3:a:x", "is not the name of an image"),
        ("", "it does not say which image it is about: --for IMAGE does"),
    ],
)
def test_what_matches_nothing_is_listed(
    registries: FakeRegistries, image: Image, name: str, reason: str
) -> None:
    found = plan(registries, trivy(openssl(), openssl("CVE-2"), Metadata={}, ArtifactName=name))
    assert not found.images
    (lost,) = found.unmatched
    assert (lost.file, lost.statements) == ("file 1", 2)
    assert reason in lost.reason


def test_a_registry_that_does_not_answer_is_the_reason(registries: FakeRegistries, image: Image) -> None:
    registries.fail(HOST, Unreachable("nobody answers"))
    found = plan(registries, report(image))
    assert not found.images
    assert "nobody answers" in found.unmatched[0].reason


def test_what_is_stated_is_not_stated_again(registries: FakeRegistries, image: Image) -> None:
    attach(registries, plan(registries, report(image)))
    (again,) = plan(registries, report(image, openssl(), openssl("CVE-2"))).images
    assert [new.vulnerability for new in again.new] == ["CVE-2"]
    assert again.stated == 1


def test_a_scanner_does_not_overrule_who_has_looked(registries: FakeRegistries, image: Image) -> None:
    state(registries)
    (one,) = plan(registries, report(image)).images
    assert (one.new, one.assessed) == ([], 1)


def test_by_an_alias_too(registries: FakeRegistries, image: Image) -> None:
    state(registries, vulnerability="GHSA-1")
    (one,) = plan(registries, report(image, openssl(VendorIDs=["GHSA-1"]))).images
    assert (one.new, one.assessed) == ([], 1)


def test_a_person_overrules_a_scanner(registries: FakeRegistries, image: Image) -> None:
    attach(registries, plan(registries, report(image)))
    state(registries, timestamp=NOW)
    queries = RegistryQueries(registries)
    reading = importing_read(queries, image)
    assert [one.statement.status for one in reading] == ["not_affected"]


def importing_read(queries: RegistryQueries, image: Image) -> list[Any]:
    from digestry.advisories.attachments import read_advisories

    return read_advisories(queries, Reference.parse(APP), [image.manifest]).current()


@pytest.mark.long
def test_thousands_of_findings_are_one_document(registries: FakeRegistries, image: Image) -> None:
    found = plan(registries, report(image, *(openssl(f"CVE-{number}") for number in range(3000))))
    attach(registries, found)
    assert len(registries.at(APP).referrers(image.manifest)) == 1
    assert len(importing_read(RegistryQueries(registries), image)) == 3000


def test_severity_and_author(registries: FakeRegistries, image: Image) -> None:
    findings = openssl(), openssl("CVE-2", Severity="LOW"), openssl("CVE-3", Severity="UNKNOWN")
    found = plan(registries, report(image, *findings), severity="high", author="security@example")
    assert found.less_severe == 1
    assert {(new.vulnerability, new.author) for new in found.images[0].new} == {
        ("CVE-1", "security@example"),
        ("CVE-3", "security@example"),
    }


def openvex(*products: str, status: str = "affected", **more: Any) -> dict[str, Any]:
    return {
        "@context": "https://openvex.dev/ns/v0.2.0", "@id": "urn:x", "author": "them", "version": 1,
        "timestamp": "2026-11-20T00:00:00Z",
        "statements": [
            {
                "vulnerability": {"name": "CVE-5"}, "status": status,
                "products": [{"@id": one} for one in products], **more,
            }
        ],
    }  # fmt: skip


def test_a_document_about_several_images(registries: FakeRegistries, image: Image) -> None:
    other = registries.at(f"{HOST}/team/other").image("other", "1")
    names = [
        f"pkg:oci/app@{image.manifest}?repository_url={APP}",
        f"pkg:oci/other?repository_url={HOST}/team/other&tag=1",
        "pkg:deb/debian/curl@1",
    ]
    found = plan(registries, openvex(*names, status="fixed"))
    assert {one.image.digest for one in found.images} == {image.manifest, other.manifest}
    assert [new.status for one in found.images for new in one.new] == ["fixed", "fixed"]
    (lost,) = found.unmatched
    assert "--for IMAGE" in lost.reason


def test_for_an_image_a_package_is_a_component_of_it(registries: FakeRegistries, image: Image) -> None:
    found = plan(registries, openvex("pkg:deb/debian/curl@1"), only=f"{APP}:1")
    (one,) = found.images
    assert (one.image.digest, one.new[0].components) == (image.manifest, ("pkg:deb/debian/curl@1",))


def test_for_an_image_a_report_about_another_is_refused(registries: FakeRegistries, image: Image) -> None:
    other = registries.at(APP).image("other", "2")
    found = plan(registries, report(other), only=f"{APP}:1")
    assert not found.images
    assert found.unmatched[0].reason == f"it is about another image than {APP}@{image.manifest}"


def test_for_an_index_a_report_on_one_of_its_images_is_about_that(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    amd, arm = app.image("amd"), app.image("arm")
    app.index({"linux/amd64": amd, "linux/arm64": arm}, "1")
    found = plan(registries, report(Image(arm.manifest, arm.config), names=()), only=f"{APP}:1")
    assert [one.image.digest for one in found.images] == [arm.manifest]


def test_for_an_image_one_product_of_many_is_not_taken_for_it(
    registries: FakeRegistries, image: Image
) -> None:
    found = plan(registries, openvex("cpe:2.3:a:x", "cpe:2.3:a:y"), only=f"{APP}:1")
    assert not found.images
    assert len(found.unmatched) == 2
    assert plan(registries, openvex("cpe:2.3:a:x"), only=f"{APP}:1").images


def test_a_statement_that_gives_no_reason_is_given_one(registries: FakeRegistries, image: Image) -> None:
    (one,) = plan(registries, openvex(f"{APP}@{image.manifest}", status="not_affected")).images
    assert one.new[0].note == "them says so, and gives no reason"
