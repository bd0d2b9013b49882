"""A container as the CRI's messages have it: the same on the runtime's socket and in ``crictl``'s JSON."""

from __future__ import annotations

from typing import Final

import msgspec

from digestry.inventory.formats.container_labels import NO_LABELS, ContainerLabels

SANDBOX: Final = "its pod's sandbox, which holds the pod's network: the pause container"

# The CRI's enum, which crictl prints by name and the socket sends by number.
_NOT_RUNNING: Final = frozenset({"CONTAINER_CREATED", "CONTAINER_EXITED", 0, 2})
_KNOWN: Final = frozenset({"CONTAINER_RUNNING", 1}) | _NOT_RUNNING
_SANDBOX_STATE: Final = "SANDBOX_"
_SANDBOX_READY: Final = "SANDBOX_READY"


class Metadata(msgspec.Struct):
    """The kubelet's name of a container, or of the pod of a sandbox."""

    name: str = ""
    namespace: str = ""


class ImageSpec(msgspec.Struct):
    """The image of a container: the name that the runtime shows, and the one that it was given."""

    image: str = ""
    typed: str = msgspec.field(default="", name="userSpecifiedImage")


class CriContainer(msgspec.Struct, rename="camel"):
    """A container, as ListContainers and ContainerStatus describe it; a sandbox, in ``crictl inspectp``."""

    id: str = ""
    metadata: Metadata | None = None
    image: ImageSpec | None = None
    image_ref: str | None = None
    image_id: str | None = None
    state: str | int | None = None
    labels: ContainerLabels | None = None

    @property
    def runs(self) -> bool:
        """Whether the container runs. One in no known state has not been seen to end."""
        return self.state not in _NOT_RUNNING

    @property
    def has_known_state(self) -> bool:
        """Whether the runtime says whether the container runs."""
        return self.state in _KNOWN

    @property
    def is_sandbox(self) -> bool:
        """Whether the state is that of a sandbox, and not of a container."""
        return str(self.state).startswith(_SANDBOX_STATE)

    @property
    def is_ready_sandbox(self) -> bool:
        """Whether a sandbox runs, or does not say whether it does."""
        return str(self.state or "") in {_SANDBOX_READY, ""}

    @property
    def name(self) -> str:
        """``pod/container``, as containers of pods are named elsewhere."""
        labels = self.labels or NO_LABELS
        return labels.in_pod(labels.pod_container or (self.metadata.name if self.metadata else ""))

    @property
    def namespace(self) -> str:
        """The namespace of the container's pod."""
        return (self.labels or NO_LABELS).pod_namespace


class ConfigImage(msgspec.Struct):
    """The image in the configuration that the kubelet sent: often an ID, with the name beside it."""

    image: str = ""
    typed: str = msgspec.field(default="", name="user_specified_image")


class ContainerConfig(msgspec.Struct):
    """The configuration that the kubelet sent; containerd shows it in ``info`` and in its own record."""

    image: ConfigImage | None = None


class ContainerInfo(msgspec.Struct):
    """containerd's additions to a container's status."""

    config: ContainerConfig | None = None


def config_image(config: ContainerConfig | None) -> ConfigImage:
    """Return the image that ``config`` names, empty if there is none."""
    return (config.image if config else None) or ConfigImage()
