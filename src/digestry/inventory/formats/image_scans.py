"""Reports of scanners about images, which prove that an image was scanned, not that it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Final

from digestry.errors import InvalidConfiguration
from digestry.inventory.formats.bills_of_materials import LISTED_HOST
from digestry.inventory.formats.declared_images import ObjectFormat, declared_image
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import Fields, Item, begins_with
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text
from digestry.model.text import number_of

_RUNS: Final = "audit what runs: --source kubernetes, docker, podman, or what they print"
_HUB: Final = ("index.docker.io", "registry-1.docker.io")


class _Scan(ObjectFormat):
    whole: ClassVar[bool] = True

    def scanned(
        self,
        place: SourceLocation,
        *,
        namespace: str,
        name: str,
        typed: str,
        digests: Iterable[tuple[str, str]],
        by: str,
    ) -> Item:
        """Return an image that ``by`` scanned, under the ``name`` that it has in the report."""
        remark = f"{by} scanned it, which does not show that it runs anywhere"
        image = declared_image(self._reading, typed, *digests, template=True, remarks=(remark,))
        return self.row(place, image, host=place.host or LISTED_HOST, namespace=namespace, name=name)


class TrivyCluster(_Scan):
    """``trivy k8s --report all`` and ``--report summary``, in JSON."""

    title: ClassVar[str] = "`trivy k8s --format json`"
    usable: ClassVar[str] = "resources with the metadata of an image"

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "ClusterName" in fields

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterator[Item]:
        resources = [
            as_object(each) for key in ("Resources", "Vulnerabilities") for each in as_list(entry.get(key))
        ]
        found = False
        without: list[str] = []
        for resource in resources:
            metadata = resource.get("Metadata")
            # Of one image, or, since Trivy 0.51, of each of a workload's.
            images = [as_object(item) for item in (metadata if isinstance(metadata, list) else [metadata])]
            name = f"{as_text(resource.get('Kind'))}/{as_text(resource.get('Name'))}"
            known = [image for image in images if _identities(image)]
            if not known and any(
                as_text(as_object(r).get("Class")) == "os-pkgs" for r in as_list(resource.get("Results"))
            ):
                without.append(name)
            for image in known:
                found = True
                tags = as_list(image.get("RepoTags"))
                typed = as_text(tags[0]) if tags else ""
                yield self.scanned(
                    place,
                    namespace=as_text(resource.get("Namespace")),
                    name=name,
                    typed=typed,
                    digests=_identities(image),
                    by="Trivy",
                )
        if without:
            workloads = number_of(len(without), "workload")
            yield self._reading.problem(
                f"Trivy scanned {workloads} ({shown(without[0])} for one), and does not say"
                " which digest their image has",
                _RUNS,
            )
        if not found:
            raise InvalidConfiguration(
                "`trivy k8s` says nothing of any image's digest in it", hint=f"--report all has more; {_RUNS}"
            )


def _identities(metadata: JsonObject) -> list[tuple[str, str]]:
    found = [("RepoDigests", as_text(digest)) for digest in as_list(metadata.get("RepoDigests"))]
    if as_text(metadata.get("ImageID")):
        found.append(("ImageID", as_text(metadata.get("ImageID"))))
    return found


class VulnerabilityReport(_Scan):
    """The resources that Trivy's operator keeps: ``kubectl get vulnerabilityreports -A -o json``."""

    title: ClassVar[str] = "`kubectl get vulnerabilityreports -o json`"
    usable: ClassVar[str] = "reports with an artifact"

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        raw = fields.get("apiVersion")
        return raw is not None and bytes(raw).startswith(b'"aquasecurity.github.io/')

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterator[Item]:
        metadata, report = as_object(entry.get("metadata")), as_object(entry.get("report"))
        artifact = as_object(report.get("artifact"))
        labels = as_object(metadata.get("labels"))
        repository, tag = as_text(artifact.get("repository")), as_text(artifact.get("tag"))
        if not repository and not self._reading.first("report", as_text(entry.get("kind"))):
            return
        if not repository:
            raise InvalidConfiguration(
                f"a {as_text(entry.get('kind')) or 'report'} that names no image",
                hint=f"expected {self.usable}",
            )
        server = as_text(as_object(report.get("registry")).get("server"))
        server = "docker.io" if server in _HUB else server
        typed = f"{server}/{repository}" if server else repository
        if tag:
            typed += f"@{tag}" if tag.startswith("sha256:") else f":{tag}"
        resource = as_text(labels.get("trivy-operator.resource.name")) or as_text(metadata.get("name"))
        container = as_text(labels.get("trivy-operator.container.name"))
        name = f"{resource}/{container}" if container else resource
        digests = (("artifact.digest", as_text(artifact.get("digest"))),)
        yield self.scanned(
            place,
            namespace=as_text(metadata.get("namespace")),
            name=name,
            typed=typed,
            digests=digests,
            by="Trivy's operator",
        )


class ImageScan(ObjectFormat):
    """A report on one image, of Trivy, Grype or Syft: it names no container, and is refused."""

    title: ClassVar[str] = "a scanner's report on an image"
    usable: ClassVar[str] = "containers: a scan says that an image was scanned, and not that it runs"
    whole: ClassVar[bool] = True

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        if "ArtifactName" in fields and "SchemaVersion" in fields:
            return True
        return begins_with(fields.get("source"), "{") and ("matches" in fields or "artifacts" in fields)

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        if "ArtifactName" in entry:
            by, name = "Trivy", as_text(entry["ArtifactName"])
            about = as_object(entry.get("Metadata"))
            digests = [*as_list(about.get("RepoDigests")), about.get("ImageID")]
        else:
            source = as_object(entry.get("source"))
            by = as_text(as_object(entry.get("descriptor")).get("name")) or "a scanner"
            target = source.get("target")
            about = {**source, **as_object(source.get("metadata")), **as_object(target)}
            name = as_text(about.get("userInput")) or as_text(about.get("name")) or as_text(target)
            digests = [*as_list(about.get("repoDigests")), about.get("manifestDigest"), about.get("imageID")]
        named = ", ".join(dict.fromkeys(as_text(digest) for digest in digests if as_text(digest)))
        raise InvalidConfiguration(
            f"{by}'s report on the image {shown(name)}{f' ({named})' if named else ''}: it was scanned,"
            " which does not show that it runs",
            hint=_RUNS,
        )
