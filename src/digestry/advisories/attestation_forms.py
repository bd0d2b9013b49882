"""The forms in which an attestation is attached to an image: bare, in a Sigstore bundle, in cosign's tag."""

from __future__ import annotations

import datetime
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, Literal, Protocol, TypeAlias

import msgspec

from digestry.advisories import dsse
from digestry.advisories.openvex_writer import openvex_time
from digestry.advisories.signing_keys import SigningKey
from digestry.errors import Conflict, InvalidReference, Refused, RemoteNotFound
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.json_values import JsonObject, as_list, as_object
from digestry.model.manifest import Manifest, encode
from digestry.model.reference import LONGEST_TAG

SignedForm: TypeAlias = Literal["bundle", "tag"]
"""``bundle``: a Sigstore bundle, a referrer of the image, which cosign 3 writes and reads. ``tag``: an
envelope at the tag ``sha256-HEX.att``, beside others, which cosign 1 and 2 write and read."""

BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_EMPTY: Final = b"{}"
_CREATED: Final = "org.opencontainers.image.created"
_ATTEMPTS: Final = 5
_AROUND: Final = 4096
"""Bytes of an envelope and its bundle beside the payload, with room for a signature of any key."""


class AttachingRepository(Protocol):
    """One repository, as far as attaching uses it. Its methods raise
    :class:`~digestry.errors.DigestryError`."""

    def pull_manifest(self, target: str) -> Manifest: ...

    def push_blob(self, descriptor: Descriptor, source: Callable[[], BinaryIO]) -> object: ...

    def push_manifest(self, raw: bytes, media_type: str, *, tags: Sequence[str] = ...) -> Digest: ...

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> Sequence[Descriptor]: ...


@dataclass(frozen=True, slots=True)
class Signing:
    """The key that signs what is attached, and the form that it gets."""

    key: SigningKey
    form: SignedForm = "bundle"


@dataclass(frozen=True, slots=True)
class Attestation:
    """An in-toto statement about ``subject``, as JSON, and the type of its predicate."""

    content: bytes
    predicate_type: str
    subject: Descriptor
    created: datetime.datetime


def attach_attestation(
    repository: AttachingRepository, attestation: Attestation, signing: Signing | None = None
) -> Digest:
    """Attach ``attestation`` to its subject, signed with ``signing``, and return the digest of the manifest.

    Raises :class:`Refused` if the registry does not list it with the subject, :class:`Conflict` if others
    keep changing cosign's tag, and the errors of the repository.
    """
    if signing is None:
        annotations = {media_types.PREDICATE_TYPE: attestation.predicate_type}
        layer = _push(repository, media_types.IN_TOTO, attestation.content, annotations)
        return _refer(repository, attestation, layer, annotations)
    message = dsse.pre_authentication_encoding(media_types.IN_TOTO, attestation.content)
    envelope = dsse.make_envelope(attestation.content, signing.key.sign(message))
    if signing.form == "tag":
        return _extend_tag(repository, attestation, msgspec.json.encode(envelope))
    bundle = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": signing.key.hint}},
        "dsseEnvelope": envelope,
    }
    annotations = {
        "dev.sigstore.bundle.content": "dsse-envelope",
        media_types.BUNDLE_PREDICATE_TYPE: attestation.predicate_type,
        media_types.PREDICATE_TYPE: attestation.predicate_type,
    }
    layer = _push(repository, BUNDLE, msgspec.json.encode(bundle))
    return _refer(repository, attestation, layer, annotations)


def enveloped_size(content: bytes) -> int:
    """Return the bytes that a signed attestation with ``content`` has at the most."""
    return (len(content) + 2) // 3 * 4 + _AROUND


def attestation_tag(subject: Digest) -> str | None:
    """Return the tag at which cosign puts the attestations of ``subject``; None if that is longer than a tag
    may be, as for ``sha512``: then no registry can have one."""
    tag = f"{subject.algorithm}-{subject.encoded}.att"
    return tag if len(tag) <= LONGEST_TAG else None


def _refer(
    repository: AttachingRepository,
    attestation: Attestation,
    layer: Descriptor,
    annotations: Mapping[str, str],
) -> Digest:
    """Push a referrer of the subject with ``layer``, whose media type is its artifact type."""
    config = _push(repository, media_types.OCI_EMPTY, _EMPTY)
    subject = attestation.subject
    raw = _manifest(
        config,
        [layer],
        artifactType=layer.media_type,
        subject=Descriptor(subject.media_type, subject.digest, subject.size),
        annotations={**annotations, _CREATED: openvex_time(attestation.created)},
    )
    referrer = repository.push_manifest(raw, media_types.OCI_MANIFEST)
    if all(one.digest != referrer for one in repository.referrers(subject.digest)):
        raise Refused(
            f"the registry took the advisory {referrer}, but does not list it with {subject.digest}",
            status=200,
            hint="this registry does not keep referrers; an audit would not find the advisory",
        )
    return referrer


def _extend_tag(repository: AttachingRepository, attestation: Attestation, envelope: bytes) -> Digest:
    """Add an envelope to those of cosign's tag, again if another client changed the tag meanwhile."""
    digest = attestation.subject.digest
    tag = attestation_tag(digest)
    if tag is None:
        raise InvalidReference(
            f"cosign has no tag for attestations of {digest.algorithm} digests: it would be too long",
            hint="attach a bundle, as a referrer",
        )
    annotations = {"dev.cosignproject.cosign/signature": "", "predicateType": attestation.predicate_type}
    layer = _push(repository, dsse.MEDIA_TYPE, envelope, annotations)
    for _ in range(_ATTEMPTS):
        before = _tagged(repository, tag)
        known = () if before is None else before.layers
        diff_ids = [str(one.digest) for one in (*known, layer)]
        config = {"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        described = _push(repository, media_types.OCI_CONFIG, encode(config))
        raw = _manifest(described, [layer]) if before is None else _extended(before, described, layer)
        digest = repository.push_manifest(raw, media_types.OCI_MANIFEST, tags=[tag])
        after = _tagged(repository, tag)
        if after is not None and {one.digest for one in after.layers} >= {
            one.digest for one in (*known, layer)
        }:
            return digest
    raise Conflict(
        f"the tag {tag} was changed by others {_ATTEMPTS} times while an attestation was added",
        hint="try again, or attach a bundle, which needs no tag",
    )


def _tagged(repository: AttachingRepository, tag: str) -> Manifest | None:
    """Return the list of attestations at ``tag``; None if there is none. Raises :class:`Conflict`."""
    try:
        manifest = repository.pull_manifest(tag)
    except RemoteNotFound:
        return None
    if manifest.is_index:
        raise Conflict(
            f"the tag {tag} is an index, and not a list of attestations", hint="attach a bundle instead"
        )
    return manifest


def _extended(before: Manifest, config: Descriptor, layer: Descriptor) -> bytes:
    """Return a list of attestations with one more. What others wrote stays as it is, field by field."""
    document = as_object(msgspec.json.decode(before.raw))
    return encode({**document, "config": config, "layers": [*as_list(document.get("layers")), layer]})


def _push(
    repository: AttachingRepository,
    media_type: str,
    content: bytes,
    annotations: Mapping[str, str] | None = None,
) -> Descriptor:
    descriptor = Descriptor(
        media_type, Digest.of(content), len(content), annotations=dict(annotations) if annotations else None
    )
    repository.push_blob(descriptor, lambda: io.BytesIO(content))
    return descriptor


def _manifest(config: Descriptor, layers: Sequence[Descriptor], **more: object) -> bytes:
    document: JsonObject = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": config,
        "layers": list(layers),
    }
    return encode({**document, **more})
