"""Reports in the shapes in which programs write them, each read, or refused with what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from digestry.advisories import importing
from digestry.advisories.importing import image_and_components
from digestry.advisories.statements import LONG_AGO, Document, ForeignDocument, UnreadableDocument
from tests.advisories.test_scanner_reports import (
    CONFIG,
    MANIFEST,
    PURL,
    grype,
    openssl,
    read,
    refused,
    sarif,
    trivy,
)

OTHER = "sha256:" + "b" * 64
OTHER_CONFIG = "sha256:" + "d" * 64


def read_all(value: object) -> list[Document]:
    found = importing.read_file(json.dumps(value).encode())
    assert all(isinstance(one, Document) for one in found), found
    return [one for one in found if isinstance(one, Document)]


def without(value: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: one for name, one in value.items() if name not in names}


# -- Trivy ---------------------------------------------------------------------------------------------


def test_a_report_of_trivy_before_it_wrote_when_it_was_made() -> None:
    document = read(without(trivy(openssl()), "CreatedAt", "Trivy"))
    assert document.author == "Trivy"
    assert document.statements[0].timestamp == LONG_AGO  # imported as of now


def test_a_report_of_trivy_without_metadata_names_its_image_by_its_name() -> None:
    (statement,) = read(without(trivy(openssl()), "Metadata")).statements
    (product,) = statement.products
    assert (product.names, product.hashes) == (("reg.example/app:1",), ())


def test_a_report_of_trivy_in_the_first_schema_names_no_image() -> None:
    results = [{"Target": "app:1 (alpine 3.10.2)", "Vulnerabilities": [openssl()]}, {"Target": "b"}]
    (statement,) = read(results).statements
    assert (statement.vulnerability, statement.products[0].names) == ("CVE-1", ())


@pytest.mark.parametrize("kind", ["cyclonedx", "spdx"])
def test_a_report_of_trivy_on_a_list_of_packages_names_no_image(kind: str) -> None:
    report = trivy(openssl(), ArtifactType=kind, ArtifactName="sbom.json", Metadata={})
    (statement,) = read(report).statements
    assert statement.products[0].names == ()
    assert statement.products[0].components == (PURL,)


def test_a_report_of_trivy_on_something_else_says_what_to_do() -> None:
    assert refused(trivy(openssl(), ArtifactType="repository")) == (
        "it is Trivy's report on a repository, and not on an image: trivy image IMAGE --format json makes one"
    )


def test_what_trivy_writes_for_cosign() -> None:
    report = without(trivy(openssl()), "CreatedAt")
    predicate = {
        "invocation": {"parameters": None, "uri": "", "event_id": "", "builder.id": ""},
        "scanner": {"uri": "pkg:github/aquasecurity/trivy@dev", "version": "dev", "db": {}, "result": report},
        "metadata": {
            "scanStartedOn": "2026-11-27T10:00:00Z",
            "scanFinishedOn": "2026-11-27T10:00:01Z",
        },
    }
    (statement,) = read(predicate).statements
    assert statement.products[0].names[0] == f"reg.example/app@{MANIFEST}"
    assert statement.timestamp.isoformat() == "2026-11-27T10:00:01+00:00"


def resource(kind: str, name: str, metadata: object, *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    found = {"Namespace": "shop", "Kind": kind, "Name": name, "Results": list(results)}
    return found | ({} if metadata is None else {"Metadata": metadata}) | more


def os_packages(target: str, *found: dict[str, Any]) -> dict[str, Any]:
    return {
        "Target": f"{target} (alpine 3.20)",
        "Class": "os-pkgs",
        "Type": "alpine",
        "Vulnerabilities": list(found),
    }


APP = {"ImageID": CONFIG, "RepoTags": ["reg.example/app:1"], "RepoDigests": [f"reg.example/app@{MANIFEST}"]}
DB = {"ImageID": OTHER_CONFIG, "RepoTags": ["reg.example/db:2"], "RepoDigests": [f"reg.example/db@{OTHER}"]}


@pytest.mark.parametrize("name", ["Resources", "Findings", "Vulnerabilities"])
def test_a_report_of_trivy_on_a_cluster_is_a_document_for_each_image(name: str) -> None:
    report = {
        "ClusterName": "prod",
        name: [
            resource("Deployment", "web", APP, os_packages("reg.example/app:1", openssl())),
            resource("CronJob", "job", APP, os_packages("reg.example/app:1", openssl())),
            resource("StatefulSet", "db", [DB], os_packages("reg.example/db:2", openssl("CVE-2"))),
            resource(
                "Service", "web", {}, {"Target": "Service/web", "Class": "config", "Type": "kubernetes"}
            ),
        ],
    }
    app, db = read_all(report)
    assert [one.vulnerability for one in app.statements] == ["CVE-1"]
    assert app.statements[0].products[0].hashes == (("sha256", "c" * 64),)
    assert app.statements[0].notes == "openssl 3.3.1-r0 (high): a hole"
    assert [one.vulnerability for one in db.statements] == ["CVE-2"]
    assert db.statements[0].products[0].names == (f"reg.example/db@{OTHER}", "reg.example/db:2")
    assert app.faults == db.faults == ()


def test_containers_of_one_pod_are_told_apart_by_their_targets() -> None:
    jar = {"Target": "app/x.jar", "Class": "lang-pkgs", "Vulnerabilities": [openssl("CVE-9")]}
    pod = resource(
        "Pod",
        "web",
        [APP, DB],
        os_packages("reg.example/app:1", openssl()),
        os_packages("reg.example/db:2", openssl("CVE-2")),
        jar,
    )
    node = resource("NodeInfo", "n1", None, {"Target": "kubelet", "Vulnerabilities": [openssl("CVE-3")]})
    failed = resource("Pod", "dark", None, Error="scan failed: unauthorized")
    app, db = read_all({"ClusterName": "prod", "Resources": [pod, node, failed]})
    assert [one.vulnerability for one in app.statements] == ["CVE-1"]
    assert [one.vulnerability for one in db.statements] == ["CVE-2"]
    assert app.faults == (
        "Trivy could not scan shop/Pod/dark: scan failed: unauthorized",
        "1 vulnerabilities of shop/Pod/web were left out: it does not say in which image they are",
        "1 vulnerabilities of shop/NodeInfo/n1 were left out: it does not say in which image they are",
    )


def test_a_report_on_a_cluster_without_images() -> None:
    assert refused({"ClusterName": "prod", "Resources": []}) == "Trivy's report on the cluster has no image"
    failed = resource("Pod", "web", None, Error="unauthorized")
    assert "shop/Pod/web: unauthorized" in refused({"ClusterName": "prod", "Resources": [failed]})


# -- Grype ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", [{"type": "unknown", "target": "unknown"}, {"type": "sbom-file", "target": "/sbom.json"}]
)
def test_a_report_of_grype_on_a_list_of_packages_names_no_image(source: dict[str, Any]) -> None:
    (statement,) = read(grype(source=source)).statements
    assert statement.products[0].names == ()
    assert statement.products[0].components == ("pkg:pypi/lib@1.0",)


def test_a_report_of_grype_on_an_image_of_an_engine_alone() -> None:
    target = {"userInput": "app:1", "imageID": CONFIG, "manifestDigest": OTHER, "tags": ["app:1"]}
    descriptor = {"name": "grype", "version": "0.40.0"}
    source = {"type": "image", "target": target}
    (statement,) = read(grype(source=source, descriptor=descriptor)).statements
    assert statement.timestamp == LONG_AGO
    assert statement.products[0].names == ("app:1",)
    assert statement.products[0].hashes == (("sha256", "b" * 64), ("sha256", "c" * 64))


# -- Snyk ----------------------------------------------------------------------------------------------


def snyk(**more: Any) -> dict[str, Any]:
    hole = {
        "id": "SNYK-ALPINE320-OPENSSL-1", "title": "Use After Free", "severity": "high",
        "packageName": "openssl/libssl3", "version": "3.3.1-r0", "nearestFixedInVersion": "3.3.2-r0",
        "identifiers": {"CVE": ["CVE-2026-1"], "CWE": ["CWE-416"]}, "from": ["docker-image|app@1", "a"],
    }  # fmt: skip
    return {
        "vulnerabilities": [
            hole,
            {**hole, "from": ["docker-image|app@1", "b"]},
            {"id": "snyk:lic:npm:x", "type": "license", "severity": "medium"},
        ],
        "ok": False, "dependencyCount": 14, "packageManager": "apk", "docker": {},
        "projectName": "docker-image|reg.example/app", "platform": "linux/amd64", "path": "reg.example/app:1",
        "applications": [
            {
                "packageManager": "npm", "ok": False,
                "vulnerabilities": [
                    {
                        "id": "SNYK-JS-LODASH-7", "packageName": "lodash", "version": "4.17.15",
                        "severity": "low", "fixedIn": ["4.17.21"], "identifiers": {"CVE": [], "GHSA": []},
                    }
                ],
            }
        ],
    } | more  # fmt: skip


def test_snyk() -> None:
    document = read(snyk())
    first, second = document.statements
    assert (first.vulnerability, first.aliases) == ("CVE-2026-1", ("SNYK-ALPINE320-OPENSSL-1",))
    assert (first.severity, first.action) == ("high", "Update openssl/libssl3 to 3.3.2-r0.")
    assert first.products[0].names == ("reg.example/app:1",)
    assert first.products[0].components == ("openssl/libssl3@3.3.1-r0",)
    assert (second.vulnerability, second.action) == ("SNYK-JS-LODASH-7", "Update lodash to 4.17.21.")
    assert document.faults == ()


def test_several_reports_of_snyk_in_one_file() -> None:
    first, second = read_all([snyk(), snyk(path="reg.example/other:2")])
    assert first.statements[0].products[0].names == ("reg.example/app:1",)
    assert second.statements[0].products[0].names == ("reg.example/other:2",)


def test_snyk_of_an_archive_and_of_a_project() -> None:
    archive = read(snyk(path="docker-archive:app.tar"))
    assert archive.statements[0].products[0].names == ()
    reason = refused(without(snyk(packageManager="npm"), "docker"))
    assert reason.startswith("it is Snyk's report on a project of npm, and not on an image: snyk container")


def test_a_sarif_log_of_snyk_names_vulnerabilities_in_its_own_way() -> None:
    (statement,) = read(sarif({"ruleId": "SNYK-DEBIAN12-PERL-5489184", "message": {"text": "x"}})).statements
    assert statement.vulnerability == "SNYK-DEBIAN12-PERL-5489184"


def test_a_sarif_log_of_docker_scout_names_no_image() -> None:
    log = sarif(
        {
            "ruleId": "CVE-2026-1", "kind": "fail", "level": "error",
            "message": {"text": "  Vulnerability : CVE-2026-1\n"},
            "locations": [
                {
                    "physicalLocation": {"artifactLocation": {"uri": "/lib/apk/db/installed"}},
                    "logicalLocations": [
                        {"name": "/lib/apk/db/installed", "fullyQualifiedName": f"{OTHER}:{CONFIG}"}
                    ],
                }
            ],
        }
    )  # fmt: skip
    rule = log["runs"][0]["tool"]["driver"]["rules"][0]
    rule["properties"] |= {"purls": [PURL], "fixed_version": "3.3.2-r0"}
    (statement,) = read(log).statements
    assert (statement.products[0].names, statement.products[0].components) == ((), (PURL,))


# -- CycloneDX -----------------------------------------------------------------------------------------

SERIAL = "3e671687-395b-41f5-a30f-a58921a69b79"
SECOND = "11111111-395b-41f5-a30f-a58921a69b79"


def bom(serial: str, image: str, *components: dict[str, Any]) -> dict[str, Any]:
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1,
        "metadata": {"component": {"bom-ref": "root", "type": "container", "name": "app", "purl": image}},
        "components": list(components),
    }  # fmt: skip


def vex(*refs: str, **analysis: str) -> dict[str, Any]:
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"timestamp": "2026-11-27T10:00:00Z"},
        "vulnerabilities": [
            {
                "id": "CVE-2026-1", "analysis": {"state": "exploitable"} | analysis,
                "ratings": [{"severity": "low"}, {"severity": "critical"}, {"score": 7}],
                "affects": [{"ref": ref} for ref in refs],
            }
        ],
    }  # fmt: skip


IMAGE = f"pkg:oci/app@{MANIFEST}?repository_url=reg.example/app"
LIBRARY = {"bom-ref": "lib 1", "type": "library", "name": "openssl", "purl": PURL}


def linked(document: dict[str, Any], *others: dict[str, Any]) -> list[Document]:
    contents = [json.dumps(one).encode() for one in (document, *others)]
    known = importing.linked_documents(contents)
    assert known.lists == frozenset(range(1, len(contents)))
    found = importing.read_file(contents[0], known.by_serial)
    return [one for one in found if isinstance(one, Document)]


def test_a_vex_refers_to_the_bill_of_materials_of_an_image() -> None:
    refs = (f"urn:cdx:{SERIAL}/1#lib%201", f"urn:cdx:{SERIAL.upper()}/1#root", f"urn:cdx:{SERIAL}/1")
    (document,) = linked(vex(*refs), bom(SERIAL, IMAGE, LIBRARY))
    (statement,) = document.statements
    assert statement.severity == "critical"
    found = [image_and_components(product, document) for product in statement.products]
    assert [image.names for image, _ in found] == [(IMAGE,)] * 3
    assert [components for _, components in found] == [(PURL,), (), ()]


def test_a_vex_refers_to_the_bills_of_materials_of_two_images() -> None:
    other = IMAGE.replace("app", "db").replace("a" * 64, "b" * 64)
    document = vex(f"urn:cdx:{SERIAL}/1#lib%201", f"urn:cdx:{SECOND}/1#root")
    (found,) = linked(document, bom(SERIAL, IMAGE, LIBRARY), bom(SECOND, other))
    assert [product.names for product in found.statements[0].products] == [(IMAGE,), (other,)]


def test_a_vex_that_refers_to_a_bill_of_materials_that_is_not_there() -> None:
    document = read(vex(f"urn:cdx:{SERIAL}/1#lib"))
    (product,) = document.statements[0].products
    image, components = image_and_components(product, document)
    assert (image.names, components) == ((), (f"urn:cdx:{SERIAL}/1#lib",))
    assert importing.refers_to_others(document)
    # Parts of two documents are not parts of one image.
    document = read(vex(f"urn:cdx:{SERIAL}/1#lib", f"urn:cdx:{SECOND}/1#lib"))
    image, _ = image_and_components(document.statements[0].products[0], document)
    assert image.names == (f"urn:cdx:{SERIAL}/1#lib",)


def test_a_bill_of_materials_that_nothing_refers_to_is_read_by_itself() -> None:
    contents = [json.dumps(one).encode() for one in (vex(PURL), bom(SERIAL, IMAGE))]
    assert importing.linked_documents(contents).lists == frozenset()
    assert importing.linked_documents(contents[:1]).by_serial == {}
    (found,) = importing.read_file(contents[1])
    assert isinstance(found, ForeignDocument)


# -- CSAF ----------------------------------------------------------------------------------------------


def csaf(*statuses: str) -> dict[str, Any]:
    image = {
        "category": "product_version",
        "name": f"reg.example/app@{MANIFEST}_amd64",
        "product": {
            "name": "app", "product_id": "app_amd64", "product_identification_helper": {"purl": IMAGE},
        },
    }  # fmt: skip
    package = {
        "category": "product_version",
        "name": "openssl",
        "product": {
            "name": "openssl", "product_id": "openssl", "product_identification_helper": {"purl": PURL},
        },
    }  # fmt: skip
    platform = {
        "category": "product_name",
        "name": "Platform 9",
        "product": {
            "name": "Platform 9", "product_id": "9Base",
            "product_identification_helper": {"cpe": "cpe:/a:redhat:platform:9::el9"},
        },
    }  # fmt: skip

    def part(product: str, of: str) -> dict[str, Any]:
        return {
            "category": "default_component_of",
            "full_product_name": {"name": f"{product} of {of}", "product_id": f"{of}:{product}"},
            "product_reference": product,
            "relates_to_product_reference": of,
        }

    return {
        "document": {
            "category": "csaf_vex", "csaf_version": "2.0",
            "publisher": {"name": "Red Hat Product Security", "category": "vendor"},
            "tracking": {"id": "CVE-2026-1", "version": "2", "current_release_date": "2026-11-27T10:00:00Z"},
        },
        "product_tree": {
            "branches": [
                {
                    "category": "vendor", "name": "Red Hat",
                    "branches": [
                        {"category": "architecture", "name": "amd64", "branches": [image, package]},
                        platform,
                    ],
                }
            ],
            "relationships": [
                part("app_amd64", "9Base"), part("openssl", "9Base"), part("openssl", "9Base:app_amd64"),
            ],
        },
        "vulnerabilities": [{"cve": "CVE-2026-1", "product_status": {"known_affected": list(statuses)}}],
    }  # fmt: skip


def test_an_image_that_is_a_part_of_a_platform_is_the_product() -> None:
    document = read(csaf("9Base:app_amd64", "9Base:openssl", "9Base:app_amd64:openssl"))
    image, package, inside = document.statements[0].products
    assert (image.names, image.components) == ((IMAGE,), ())
    assert package.names[0].startswith("cpe:")
    assert (inside.names, inside.components) == ((IMAGE,), (PURL,))


RED_HAT_OPERATOR = f"registry.redhat.io/rhacm2/operator-rhel8@{MANIFEST}"


def vendor_document(
    publisher: str, names: dict[str, dict[str, str]], relations: list[tuple[str, str]], **status: list[str]
) -> dict[str, Any]:
    """A CSAF document with products by their IDs, and products that are a part of others, ``OF:PART``."""
    return {
        "document": {
            "category": "csaf_vex", "csaf_version": "2.0",
            "publisher": {"category": "vendor", "name": "Vendor", "namespace": publisher},
            "tracking": {"id": "CVE-2026-1", "version": "3", "current_release_date": "2026-11-27T10:00:00Z"},
        },
        "product_tree": {
            "branches": [
                {
                    "category": "vendor", "name": "Vendor",
                    "branches": [
                        {
                            "category": "product_version", "name": name,
                            "product": {
                                "name": name, "product_id": name,
                                **({"product_identification_helper": helper} if helper else {}),
                            },
                        }
                        for name, helper in names.items()
                    ],
                }
            ],
            "relationships": [
                {
                    "category": "default_component_of",
                    "full_product_name": {"name": f"{part} in {of}", "product_id": f"{of}:{part}"},
                    "product_reference": part, "relates_to_product_reference": of,
                }
                for part, of in relations
            ],
        },
        "vulnerabilities": [{"cve": "CVE-2026-1", "product_status": status}],
    }  # fmt: skip


def products_of(value: dict[str, Any]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(one.names, one.components) for said in read(value).statements for one in said.products]


SLES = "SUSE Linux Enterprise Server 15 SP6"
RPM = "libopenssl3-3.1.4-150600.5.7.1.x86_64"
RPM_PURL = "pkg:rpm/suse/libopenssl3@3.1.4-150600.5.7.1?arch=x86_64"


def suse(publisher: str = "https://www.suse.com/") -> dict[str, Any]:
    base = "Container bci/bci-base:15.6"
    return vendor_document(
        publisher,
        {
            SLES: {"cpe": "cpe:/o:suse:sles:15:sp6"},
            base: {},
            RPM: {"cpe": "cpe:2.3:a:suse:libopenssl3:*:*:*:*:*:*:*:*", "purl": RPM_PURL},
        },
        [(RPM, SLES), (RPM, base)],
        known_affected=[f"{base}:{RPM}", f"{SLES}:{RPM}", base],
    )


def test_an_image_of_suse_is_named_by_the_name_of_its_product() -> None:
    image = "https://registry.suse.com/bci/bci-base:15.6"
    inside, package, whole = products_of(suse())
    assert inside == ((image,), (RPM_PURL,))
    assert whole == ((image,), ())
    assert package[0] == ("cpe:/o:suse:sles:15:sp6",)  # a system, and no image
    # Anybody else may call anything a container.
    elsewhere = products_of(suse("https://www.example.com/suse.com/"))
    assert elsewhere[0][0] == ("urn:csaf:Container bci/bci-base:15.6",)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("registry.suse.com/suse/sle15:15.6", "https://registry.suse.com/suse/sle15:15.6"),
        (f"openshift4/ose-cli@{MANIFEST}_arm64", f"https://openshift4/ose-cli@{MANIFEST}"),
        (f"{RED_HAT_OPERATOR}_s390x", f"https://{RED_HAT_OPERATOR}"),
        ("github.com/some/module", ""),
        ("Example Server 2.0", ""),
        ("Container", ""),
        ("registry.suse.com/Not An Image:1", ""),
    ],
)
def test_which_names_of_products_are_images(name: str, image: str) -> None:
    document = vendor_document("https://example.com", {name: {}}, [], known_affected=[name])
    assert products_of(document) == [((image or f"urn:csaf:{name}",), ())]


def test_images_of_red_hat_are_identified_by_their_package_urls() -> None:
    where = "arch=s390x&repository_url=registry.redhat.io/rhacm2/operator-rhel8&tag=v2.6.1-1"
    fixed = f"pkg:oci/operator-rhel8@{MANIFEST}?{where}"
    unfixed = "pkg:oci/ose-cli?repository_url=registry.redhat.io/openshift4/ose-cli"
    acm, name = "8Base-RHACM-2.6", f"rhacm2/operator-rhel8@{MANIFEST}_s390x"
    value = vendor_document(
        "https://www.redhat.com",
        {
            acm: {"cpe": "cpe:/a:redhat:acm:2.6::el8"},
            name: {"purl": fixed},
            "openshift4/ose-cli": {"purl": unfixed},
            RPM: {"purl": RPM_PURL},
        },
        # The part of an image is said before the image that is part of the platform.
        [(RPM, f"{acm}:{name}"), (name, acm), ("openshift4/ose-cli", acm)],
        fixed=[f"{acm}:{name}", f"{acm}:{name}:{RPM}"],
        known_affected=[f"{acm}:openshift4/ose-cli"],
    )
    assert products_of(value) == [((fixed,), ()), ((fixed,), (RPM_PURL,)), ((unfixed,), ())]


# -- what is not read ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            {
                "version": "15.0.0",
                "scan": {"type": "container_scanning", "scanner": {"name": "Trivy"}},
                "vulnerabilities": [],
            },
            "it is a report for GitLab, which is not read: let Trivy write SARIF, CycloneDX or its own JSON",
        ),
        ({"imageScanFindings": {"findings": []}, "repositoryName": "app"}, "a report of Amazon ECR"),
        (
            {
                "application/vnd.security.vulnerability.report; version=1.1": {
                    "vulnerabilities": [{"id": "CVE-1"}]
                }
            },
            "a report of Harbor",
        ),
        (
            {"manifest_hash": MANIFEST, "vulnerabilities": {}, "package_vulnerabilities": {}},
            "a report of Clair",
        ),
        (
            {"status": "scanned", "data": {"Layer": {"Features": [], "Vulnerabilities": 1}}},
            "a report of Quay",
        ),
        (
            {"source": {"type": "image"}, "artifacts": [{"vulnerabilities": 0}], "descriptor": {"name": "x"}},
            "it is a list of packages, which is not read: let a scanner read it",
        ),
    ],
)
def test_what_is_not_read_is_named_with_what_to_do(value: dict[str, Any], words: str) -> None:
    found = importing.read_file(json.dumps(value).encode())
    assert isinstance(found[0], UnreadableDocument)
    assert words in found[0].reason
