"""The advisories that are attached to an image, by any of the ways to attach them.

- Referrers (distribution-spec, "Listing Referrers"), and those in the fallback tag
  ("Referrers Tag Schema"), which clients write that know no such list, and keep writing in registries
  that have learnt it since.
- cosign's tag ``sha256-HEX.att``: an envelope a layer.
- BuildKit's attestation manifests, entries of an index.

A descriptor's media type of a referrer is only a hint: clients write it, some of them a wrong one. Each
referrer that cannot be ruled out is fetched; one that is listed and cannot be read is always reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from digestry.advisories import openvex
from digestry.advisories.advisory import AdvisoryReading, AttachedDocument, drop_superseded
from digestry.advisories.attached_statements import StatementMatcher
from digestry.advisories.attachment_kinds import (
    announced_predicate_type,
    is_file_system,
    is_other_media_type,
    is_other_predicate,
    is_spdx,
)
from digestry.advisories.attachment_queries import AttachmentQueries
from digestry.advisories.attestation_forms import attestation_tag
from digestry.advisories.documents import decode_documents
from digestry.advisories.products import SubjectImage
from digestry.advisories.statements import Document, ForeignDocument, UnreadableDocument
from digestry.errors import DigestryError, TooLarge, Unreachable
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.model.reference import Reference

LARGEST_ADVISORY: Final = 8 << 20
"""In bytes."""
LARGEST_SPDX: Final = 64 << 20
"""In bytes, of a bill of materials in SPDX, which is not decoded if it is larger than an advisory."""
MOST_REFERRERS: Final = 100
"""The most referrers of one digest that are read; further ones are reported."""
MOST_SUBJECTS: Final = 64
"""Manifests and indexes of the same code whose advisories are read."""
MOST_LAYERS: Final = 256
"""Of one manifest; cosign's tag has a layer for each attestation."""

_STATING: Final = ("application/vnd.in-toto", "application/vnd.dsse.", "application/vnd.dev.sigstore.bundle")
_REFERENCE_TYPE: Final = "vnd.docker.reference.type"
_REFERENCE_DIGEST: Final = "vnd.docker.reference.digest"


def list_tag(subject: Digest) -> str:
    """Return the tag that lists the referrers of ``subject`` where nothing else does."""
    return f"{subject.algorithm}-{subject.encoded[:64]}"


def attachment_tags(subject: Digest) -> tuple[str, ...]:
    """Return the tags at which something may be attached to ``subject``."""
    return tuple(tag for tag in (list_tag(subject), attestation_tag(subject)) if tag is not None)


def read_advisories(
    queries: AttachmentQueries,
    repository: Reference,
    subjects: Iterable[Digest],
    *,
    same_code: frozenset[Digest] = frozenset(),
    indexes: frozenset[Digest] = frozenset(),
    names: Iterable[Reference] = (),
    ruled_by: Iterable[Reference] = (),
    tags: bool = True,
) -> AdvisoryReading:
    """Read every advisory that is attached to one of ``subjects``. Errors are reasons.

    ``same_code`` are further digests of the image, ``indexes`` those of the subjects that are indexes,
    ``names`` the repository's other names, ``ruled_by`` further repositories whose rules of trust hold.
    Without ``tags`` no tags are requested. A statement about another product is ignored.
    """
    repositories = tuple(dict.fromkeys((repository, *names)))
    reader = _Reader(queries, repository, tuple(dict.fromkeys((repository, *ruled_by))), tags=tags)
    for position, subject in enumerate(sorted(subjects)):
        if position == MOST_SUBJECTS:
            reader.reading.miss(
                repository, f"more than {MOST_SUBJECTS} manifests have this code: not all were looked at"
            )
            break
        about = SubjectImage(same_code | {subject}, repositories)
        if not reader.subject(subject, about, is_index=subject in indexes):
            break
    drop_superseded(reader.reading)
    return reader.reading


class _Reader:
    def __init__(
        self,
        queries: AttachmentQueries,
        repository: Reference,
        ruled_by: tuple[Reference, ...],
        *,
        tags: bool,
    ) -> None:
        self._tags = tags
        self._queries = queries
        self._repository = repository
        self._seen: set[tuple[Digest, Digest]] = set()
        self.reading = AdvisoryReading()
        self._statements = StatementMatcher(queries, repository, ruled_by, self.reading)

    def subject(self, subject: Digest, about: SubjectImage, *, is_index: bool) -> bool:
        """Read the attachments of one digest; return False if further requests are useless."""
        steps: list[Callable[[], None]] = [lambda: self._referrers(subject, about)]
        if self._tags:
            steps += [lambda: self._listed_by_tag(subject, about), lambda: self._cosign(subject, about)]
        if is_index:
            steps.append(lambda: self._attestations(subject, about))
        for step in steps:
            try:
                step()
            except DigestryError as error:
                self.reading.miss(
                    self._repository, f"the advisories of {subject} could not be read: {error.message}"
                )
                if isinstance(error, Unreachable):
                    return False
        return True

    # -- the ways in which something is attached to an image ------------------------------------

    def _referrers(self, subject: Digest, about: SubjectImage) -> None:
        listed = self._queries.referrers(self._repository, subject)
        self._each(subject, about, [entry for entry in listed if not _ruled_out(entry)])

    def _listed_by_tag(self, subject: Digest, about: SubjectImage) -> None:
        manifest = self._tagged(list_tag(subject))
        if manifest is None or manifest.digest == subject:
            return  # `cosign copy` leaves the image itself at this tag, which lists nothing
        if not manifest.is_index:
            self.reading.miss(
                self._repository,
                f"the tag {list_tag(subject)} should list what is attached to {subject}, but is an image",
            )
            return
        self._each(subject, about, manifest.manifests)

    def _cosign(self, subject: Digest, about: SubjectImage) -> None:
        tag = attestation_tag(subject)
        manifest = None if tag is None else self._tagged(tag)
        if manifest is not None:
            self._manifest(manifest, subject, about)

    def _attestations(self, subject: Digest, about: SubjectImage) -> None:
        index = self._queries.listed_manifest(self._repository, subject)
        for entry in index.manifests if index is not None else ():
            annotations = entry.annotations or {}
            unknown = entry.platform is not None and entry.platform.os == "unknown"
            if not unknown and annotations.get(_REFERENCE_TYPE) != "attestation-manifest":
                continue
            of = annotations.get(_REFERENCE_DIGEST)
            if of is None or of in {str(digest) for digest in about.digests}:
                self._each(subject, about, [entry], attached=False)

    def _tagged(self, tag: str) -> Manifest | None:
        target = self._queries.resolve(self._repository, tag)
        if target is None:
            return None
        manifest = self._queries.listed_manifest(self._repository, target.digest)
        if manifest is None:
            self.reading.miss(
                self._repository,
                f"the tag {tag} is there, but not the manifest {target.digest} that it points to",
            )
        return manifest

    def _each(
        self, subject: Digest, about: SubjectImage, entries: Iterable[Descriptor], *, attached: bool = True
    ) -> None:
        # Those that announce themselves come first, so that a flood of others cannot hide them.
        chosen = sorted(entries, key=lambda descriptor: not _announces(descriptor))
        chosen = [descriptor for descriptor in chosen if (subject, descriptor.digest) not in self._seen]
        if len(chosen) > MOST_REFERRERS:
            self.reading.miss(
                self._repository, f"{subject} has {len(chosen)} attestations: only {MOST_REFERRERS} were read"
            )
        for entry in chosen[:MOST_REFERRERS]:
            self._seen.add((subject, entry.digest))
            try:
                self._one(subject, entry.digest, about, attached=attached)
            except Unreachable:
                raise
            except DigestryError as error:
                self.reading.miss(
                    self._repository, f"the advisory {entry.digest} could not be read: {error.message}"
                )

    def _one(self, subject: Digest, digest: Digest, about: SubjectImage, *, attached: bool) -> None:
        manifest = self._queries.listed_manifest(self._repository, digest)
        if manifest is None:
            self.reading.miss(
                self._repository, f"the referrer {digest} of {subject} is listed, but it is not there"
            )
            return
        to = manifest.subject
        if attached and to is not None and to.digest not in about.digests:
            self.reading.note(f"the referrer {digest} is attached to something else: it was passed over")
            return
        self._manifest(manifest, subject, about)

    # -- the content of a manifest ------------------------------------------------------------------

    def _manifest(self, manifest: Manifest, subject: Digest, about: SubjectImage) -> None:
        if manifest.is_index:
            self.reading.miss(
                self._repository,
                f"the referrer {manifest.digest} is an index, which is not a known kind of advisory",
            )
            return
        predicate = announced_predicate_type(manifest.annotations)
        layers = manifest.layers or _config_alone(manifest)
        silent = is_other_predicate(predicate) or is_other_media_type(manifest.artifact_type or "")
        if silent and not any(_is_stating(layer.media_type) for layer in layers):
            return
        if len(layers) > MOST_LAYERS:
            self.reading.miss(
                self._repository,
                f"the referrer {manifest.digest} has {len(layers)} layers: only {MOST_LAYERS} were read",
            )
        for layer in layers[:MOST_LAYERS]:
            self._layer(manifest, layer, subject, about)

    def _layer(self, manifest: Manifest, layer: Descriptor, subject: Digest, about: SubjectImage) -> None:
        predicate = announced_predicate_type(layer.annotations) or announced_predicate_type(
            manifest.annotations
        )
        if is_other_predicate(predicate) or is_other_media_type(layer.media_type):
            return
        if is_file_system(layer, manifest):
            return
        digest = manifest.digest
        types = (predicate, layer.media_type, manifest.artifact_type or "")
        largest = LARGEST_SPDX if any(map(is_spdx, types)) else LARGEST_ADVISORY
        if layer.size > largest:
            raise TooLarge(f"it is larger than {largest} bytes", limit=largest)
        content = self._queries.blob(self._repository, layer, limit=largest)
        if len(content) > LARGEST_ADVISORY:
            # SPDX 2 has no graph, and states nothing.
            if b"@graph" in content or b"@context" in content:
                self.reading.miss(
                    self._repository,
                    f"the referrer {digest} of {subject} is SPDX 3, and too large to be read",
                )
            return
        stating = bool(predicate) or any(map(_is_stating, (layer.media_type, manifest.artifact_type or "")))
        for found in decode_documents(content, stating=stating):
            if isinstance(found, UnreadableDocument):
                self.reading.miss(
                    self._repository, f"the referrer {digest} of {subject} cannot be decoded: {found.reason}"
                )
            elif isinstance(found, Document):
                self._statements.add(AttachedDocument(found, self._repository, subject, digest), about)
            else:
                assert isinstance(found, ForeignDocument)  # noqa: S101 - there is no other


def _announces(entry: Descriptor) -> bool:
    return openvex.is_openvex(announced_predicate_type(entry.annotations))


def _is_stating(media_type: str) -> bool:
    """Return whether this is the type of attestations or advisories."""
    kind = media_type.lower()
    return kind.startswith(_STATING) or "vex" in kind or "csaf" in kind


def _ruled_out(entry: Descriptor) -> bool:
    """Return whether a registry's own list says that an entry is of a kind that states nothing."""
    return is_other_predicate(announced_predicate_type(entry.annotations)) or is_other_media_type(
        entry.artifact_type or ""
    )


def _config_alone(manifest: Manifest) -> tuple[Descriptor, ...]:
    config = manifest.config
    silent = {media_types.OCI_EMPTY, *media_types.IMAGE_CONFIGS}
    return () if config is None or config.media_type in silent else (config,)
