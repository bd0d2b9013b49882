"""The source ``containerd``: containers on its socket, of ``ctr``, ``nerdctl`` and the kubelet.

containerd keeps the *name* of a container's image, which can move, and no digest. The container runs its
snapshot, on top of the image's layers, which have a chain ID. So the digest that a name has now is believed
only if the name has had it since before the container was made, or is pinned to it, and its layers are those
that run. For containers of the kubelet, the CRI's own record has the digest of the config.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from digestry.client.options import is_loopback
from digestry.errors import DigestryError, InvalidDigest, RemoteNotFound
from digestry.inventory.engine_values import (
    digest_of,
    has_registry,
    kind_of_media_type,
    reference_of,
    repository_of,
)
from digestry.inventory.engines.containerd_api import Container, Containerd, NamedImage
from digestry.inventory.formats.container_labels import read_labels
from digestry.inventory.formats.containerd import CRI_RECORD, RecordMetadata, read_record
from digestry.inventory.formats.cri_documents import SANDBOX, config_image
from digestry.inventory.observation import Claim, ContainerObservation, ImageFacts, Observation, Unseen, now
from digestry.inventory.sources.containerd_images import NamespaceStore
from digestry.inventory.sources.engine_source import EngineSource
from digestry.model.digest import Digest, shown
from digestry.model.platform import Platform
from digestry.model.reference import Reference
from digestry.model.text import number_of

DOCKERS: Final = "moby"
"""The namespace that docker's engine keeps for itself."""
KUBERNETES: Final = "k8s.io"
"""The namespace of a kubelet's containers, which the CRI shows as well."""

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*", re.ASCII)
_UNKNOWN_STATE: Final = "containerd does not know whether it runs"
_READ_FROM: Final = "containerd's images"
_NO_DIGEST: Final = "containerd keeps no digest with a container, only the image's name, which can move"


@dataclass(slots=True)
class _Found:
    """The facts about the image that a container runs."""

    claims: list[Claim] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    config: Digest | None = None
    manifest: Digest | None = None
    platform: Platform | None = None


class ContainerdSource(EngineSource):
    """The containers of one containerd: those that run, or, with ``include_stopped``, all.

    ``namespaces`` are those that are looked into, or, if there are none, all but ``without``.
    Docker's own, ``moby``, is looked into if it is named: the docker source sees more of it.
    """

    def __init__(
        self,
        name: str,
        containerd: Containerd,
        *,
        include_stopped: bool = False,
        namespaces: tuple[str, ...] = (),
        without: tuple[str, ...] = (),
    ) -> None:
        super().__init__(name, containerd, include_stopped=include_stopped)
        self._containerd = containerd
        self._named = namespaces
        self._without = without
        self._host = socket.gethostname()

    def _observe(self) -> Iterator[Observation]:
        try:
            there = self._containerd.namespaces()
        except DigestryError as error:
            yield self._unseen(error)
            return
        for namespace in self._named:
            if namespace not in there:
                label_names = f"it has {', '.join(map(shown, there[:8]))}" if there else "it has none"
                yield Unseen(self._name, f"containerd has no namespace {shown(namespace)}", label_names)
        for namespace in there:
            if namespace in self._without or (self._named and namespace not in self._named):
                continue
            if not _NAMESPACE.fullmatch(namespace):
                yield Unseen(
                    self._name, f"containerd has a namespace whose name is not valid: {shown(namespace)}"
                )
                continue
            try:
                yield from self._namespace(namespace)
            except DigestryError as error:
                yield Unseen(self._name, f"namespace {namespace}: {error.message}", error.hint)

    def _namespace(self, namespace: str) -> Iterator[Observation]:
        listed = list(self._containerd.containers(namespace))
        if not listed:
            return
        tasks: dict[str, bool | None] | None = None
        try:
            tasks = self._containerd.tasks(namespace)
        except DigestryError as error:
            yield Unseen(
                self._name, f"namespace {namespace}: which containers run is not known: {error.message}"
            )
        states = {record.id: self._state(namespace, record.id, tasks) for record in listed}
        reported = [record for record in listed if self._include_stopped or states[record.id] is not False]
        if namespace == DOCKERS and namespace not in self._named and reported:
            yield Unseen(
                self._name,
                f"namespace {DOCKERS}: {_of_docker(len(reported))} not looked into here",
                "add --source docker and leave this one out with ?without=moby, or name it with ?namespace=",
            )
            return
        store = NamespaceStore(self._containerd, namespace)
        for container in reported:
            if not container.id:
                yield Unseen(self._name, f"namespace {namespace}: the list has a container without an ID")
                continue
            yield self.container(namespace, container, states[container.id], store)

    def _state(self, namespace: str, identity: str, tasks: dict[str, bool | None] | None) -> bool | None:
        if tasks is None:
            return None
        if identity in tasks:
            return tasks[identity]
        if self._include_stopped:
            return False
        try:
            # The list leaves out a task that does not answer, as if there were none.
            return self._containerd.task(namespace, identity)
        except DigestryError:
            return None

    def looks_into(self, namespace: str) -> bool:
        """Return whether the containers of a namespace belong to this source."""
        if self._named:
            return namespace in self._named
        return namespace not in self._without and namespace != DOCKERS

    def container(
        self, namespace: str, container: Container, runs: bool | None, store: NamespaceStore
    ) -> ContainerObservation:
        """Return one container, with its image by what ``store`` has."""
        labels = read_labels(container.labels)
        record = read_record(container.extensions.get(CRI_RECORD, b""))
        typed = (config_image(record.config).typed if record else "") or container.image
        remarks: list[str] = []
        if labels.is_sandbox:
            remarks.append(SANDBOX)
        if runs is None:
            remarks.append(_UNKNOWN_STATE)
        reference: str | None = typed
        if not typed or digest_of(typed) is not None:
            reference = None
            remarks.append("the image's name is not known: it was started by ID, or from no image")
        try:
            found = _image(container, record, reference, store)
        except DigestryError as error:
            found = _Found(remarks=[f"containerd does not show this container's image: {error.message}"])
        named = reference_of(reference)
        return ContainerObservation(
            source=self._name,
            host=self._host,
            namespace=labels.pod_namespace or labels.compose_project or namespace,
            name=labels.containerd_name or container.id,
            id=container.id,
            image=ImageFacts(
                reference=reference,
                claims=tuple(dict.fromkeys(found.claims)),
                image_id=found.config,
                platform_manifest=found.manifest,
                platform=found.platform,
                # containerd's clients write whole names; a name without a registry was made up here.
                registry_named=named is not None and has_registry(typed),
            ),
            seen_at=now(),
            remarks=tuple(dict.fromkeys(remarks + found.remarks)),
            workload=labels.workload,
        )


# -- the image that runs ----------------------------------------------------------------------------------


def _of_docker(count: int) -> str:
    return f"{number_of(count, 'container')} of docker's {'is' if count == 1 else 'are'}"


def _image(
    container: Container, record: RecordMetadata | None, reference: str | None, store: NamespaceStore
) -> _Found:
    config = digest_of(record.image_ref) if record else None
    if config is not None:
        return _by_config(config, "the CRI's record of the container", reference, store)
    if not container.snapshot_key:
        return _Found(remarks=["containerd has no snapshot for it: its files are not an image's"])
    try:
        chain = store.parent(container.snapshotter, container.snapshot_key)
    except RemoteNotFound:
        return _Found(remarks=["containerd does not have the snapshot that it runs any more", _NO_DIGEST])
    image = store.images().get(container.image)
    pinned = named.digest if (named := reference_of(reference)) is not None else None
    if image is None:
        return _nameless(container, chain, pinned, reference, store)
    matching = [manifest for manifest in store.manifests(image) if _has(store, manifest.config, chain)]
    unmoved = 0 < image.updated <= container.created
    if pinned is not None and str(pinned) != image.digest:
        found = _by_layers(container, chain, reference, store)
        found.remarks.insert(
            0, f"the name {container.image} is given to {image.digest}, which is not its own"
        )
        return found
    if matching and (unmoved or pinned is not None):
        return _by_target(
            image,
            {manifest.config for manifest in matching},
            {manifest.manifest for manifest in matching},
            store,
        )
    found = _by_layers(container, chain, reference, store)
    if not matching:
        found.remarks.insert(0, f"{container.image} is another image: its layers are not those that run")
    elif not found.claims:
        found.remarks.insert(
            0,
            f"{container.image} was set again after this container was made: it may have been another image "
            "with the same layers",
        )
    return found


def _has(store: NamespaceStore, config: Digest, chain: str) -> bool:
    stored = store.stored_config(config)
    return stored is not None and bool(chain) and stored.chain == chain


def _by_target(
    image: NamedImage, configs: set[Digest], manifests: set[Digest], store: NamespaceStore
) -> _Found:
    """Return the image by the target of its name, which has not changed since before the container
    was made.
    """
    found = _Found()
    found.claims += _claims_of(image, store)
    if len(configs) == 1:
        (found.config,) = configs
        stored = store.stored_config(found.config)
        found.platform = stored.platform if stored else None
        found.claims.append(
            Claim(found.config, "config", None, "the layers that run", "image-id", obtained=False)
        )
        if len(manifests) == 1:
            (found.manifest,) = manifests
    elif configs:
        found.remarks.append(f"{len(configs)} configs of the image have the layers that run")
    return found


def _by_config(config: Digest, read_from: str, reference: str | None, store: NamespaceStore) -> _Found:
    """Return a config that runs for certain, and the names of the images that have it."""
    found = _Found(config=config)
    own = repository_of(reference)
    try:
        pairs = [claim for image in store.holding(config) for claim in _claims_of(image, store)]
        stored = store.stored_config(config)
        found.platform = stored.platform if stored else None
    except DigestryError as error:
        pairs = []
        found.remarks.append(f"containerd does not show its images: {error.message}")
    pairs = [claim for claim in pairs if claim.repository is not None] or pairs
    found.claims += sorted(pairs, key=lambda claim: (claim.repository != own, not claim.obtained))
    found.claims.append(Claim(config, "config", None, read_from, "image-id", obtained=False))
    return found


def _by_layers(container: Container, chain: str, reference: str | None, store: NamespaceStore) -> _Found:
    """Return the image by its running layers, where its name is no longer conclusive."""
    if not chain:
        return _Found(remarks=["the snapshot that it runs stands on no image's layers", _NO_DIGEST])
    here = store.with_layers(container.snapshotter, chain)
    if not here:
        return _Found(remarks=[f"no image here has the layers that run ({chain})", _NO_DIGEST])
    candidates = [image for image in here if image.would_make(container)]
    if len(candidates) == 1 and len(here) == 1:
        found = _by_config(candidates[0].digest, "the layers that run", reference, store)
        found.remarks.append(
            f"found by the layers that run: only one image here has them, {candidates[0].digest} (a config)"
        )
        return found
    listed = ", ".join(str(image.digest) for image in here[:4]) + (", …" if len(here) > 4 else "")
    remark = f"the layers that run are those of {listed} (of the config), but other images may have them, too"
    return _Found(remarks=[remark, _NO_DIGEST])


def _nameless(
    container: Container, chain: str, pinned: Digest | None, reference: str | None, store: NamespaceStore
) -> _Found:
    """Return the image that runs, where containerd no longer has an image of the container's name."""
    found = _by_layers(container, chain, reference, store)
    if container.image:
        found.remarks.insert(0, f"containerd no longer has an image {container.image}")
    named = reference_of(reference)
    if pinned is not None and named is not None and found.config is None:
        found.claims.insert(
            0,
            Claim(
                pinned,
                "unknown",
                named.repository_only(),
                "the container's name",
                "repo-digest",
                obtained=False,
            ),
        )
    return found


def _claims_of(image: NamedImage, store: NamespaceStore) -> list[Claim]:
    """Return the claims of an image: by its name, and by where containerd noted that it pulled it."""
    try:
        target = Digest.parse(image.digest)
    except InvalidDigest:
        return []
    pulled = store.pulled_from(target)
    repositories: dict[Reference, bool] = {}
    named = reference_of(image.name)
    if named is not None and has_registry(image.name):
        repositories[named.repository_only()] = _portless(named) in pulled
    known = {
        _portless(reference): reference
        for name in store.images()
        if (reference := reference_of(name)) and has_registry(name)
    }
    for where in sorted(pulled - {_portless(repository) for repository in repositories}):
        # The label has no port: another name that is known here may have it.
        repository = known.get(where) or reference_of(where)
        if repository is not None and (where in known or not is_loopback(repository.host)):
            repositories.setdefault(repository.repository_only(), True)
    kind = kind_of_media_type(image.media_type)
    return [
        Claim(target, kind, repository, _READ_FROM, "repo-digest", obtained)
        for repository, obtained in repositories.items()
    ] or [Claim(target, kind, None, _READ_FROM, "repo-digest", obtained=False)]


def _portless(name: Reference) -> str:
    host = name.host if name.host.endswith("]") else name.host.rpartition(":")[0] or name.host
    return f"{host}/{name.repository}"
