"""Reading Trivy's reports on a cluster (``trivy k8s --format json``): the images of its workloads.

``--report all`` lists resources, ``--report summary`` findings. The ``Metadata`` of a resource describes its
image or, in later versions, is a list with an entry for each image of its containers.
"""

from __future__ import annotations

from typing import Final

from digestry.advisories import trivy
from digestry.advisories.scanner_reports import Finding, ScannedImage, as_document
from digestry.advisories.statements import LONG_AGO, Document, UnreadableDocument
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

_LISTS: Final = ("Resources", "Findings", "Vulnerabilities")
_OS_PACKAGES: Final = "os-pkgs"
_MOST_NAMED: Final = 5


def is_report(value: JsonObject) -> bool:
    """Return whether a JSON object is Trivy's report on a cluster."""
    return "ClusterName" in value and any(isinstance(value.get(name), list) for name in _LISTS)


def read_documents(report: JsonObject) -> list[Document | UnreadableDocument]:
    """Return a document for each image of the report, also for those in which nothing was found.

    What was found in something else than an image, such as a node, is a fault of the first one; so is a
    resource that Trivy could not scan.
    """
    reader = _Reader()
    for name in _LISTS:
        for resource in map(as_object, as_list(report.get(name))):
            reader.read(resource)
    faults = [*reader.faults, *reader.unplaced()]
    documents: list[Document | UnreadableDocument] = [
        as_document(
            {}, kind="Trivy", author=trivy.author_of(report), image=image, at=LONG_AGO,
            findings=list(dict.fromkeys(findings)), faults=faults if number == 0 else (),
        )
        for number, (image, findings) in enumerate(reader.images.items())
    ]  # fmt: skip
    if documents:
        return documents
    said = f": {'; '.join(faults)}" if faults else ""
    return [UnreadableDocument(f"Trivy's report on the cluster has no image{said}")]


class _Reader:
    def __init__(self) -> None:
        self.images: dict[ScannedImage, list[Finding]] = {}
        self.faults: list[str] = []
        self._unplaced: dict[str, int] = {}

    def read(self, resource: JsonObject) -> None:
        name = "/".join(filter(None, (as_text(resource.get(part)) for part in ("Namespace", "Kind", "Name"))))
        if error := as_text(resource.get("Error")):
            self.faults.append(f"Trivy could not scan {name}: {error[:200]}")
        images = _images(resource.get("Metadata"))
        for image in images:
            self.images.setdefault(image, [])
        for result in map(as_object, as_list(resource.get("Results"))):
            findings, faults = trivy.read_findings([result])
            self.faults += [f"{name}: {fault}" for fault in faults]
            if not findings:
                continue
            place = _image_of(result, images)
            if place is None:
                self._unplaced[name] = self._unplaced.get(name, 0) + len(findings)
            else:
                self.images.setdefault(place, []).extend(findings)

    def unplaced(self) -> list[str]:
        """Return in words what was found where no image is named."""
        named = list(self._unplaced.items())
        faults = [
            f"{count} vulnerabilities of {name} were left out: it does not say in which image they are"
            for name, count in named[:_MOST_NAMED]
        ]
        if len(named) > _MOST_NAMED:
            faults.append(f"and those of {len(named) - _MOST_NAMED} resources more")
        return faults


def _images(metadata: object) -> list[ScannedImage]:
    several = metadata if isinstance(metadata, list) else [metadata]
    found = [trivy.image_of(as_object(one)) for one in several]
    return list(dict.fromkeys(one for one in found if one is not None))


def _image_of(result: JsonObject, images: list[ScannedImage]) -> ScannedImage | None:
    """Return the image of a result: the only one, or the one that its target names."""
    if len(images) == 1:
        return images[0]
    target = as_text(result.get("Target")).partition(" (")[0]
    named = [image for image in images if target in image.names]
    if len(named) == 1:
        return named[0]
    if not images and as_text(result.get("Class")) == _OS_PACKAGES and target:
        return ScannedImage((target,))
    return None
