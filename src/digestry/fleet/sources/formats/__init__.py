"""What a file of containers may be: one module a family of formats.

A new format is a class with the members of :class:`~.rows.Format`, and a line in ``FORMATS``.
"""

from __future__ import annotations

from typing import Final

from digestry.fleet.sources.formats.containerd import Containerd
from digestry.fleet.sources.formats.cri import CriImages, CriInspect, CriList, CriPods
from digestry.fleet.sources.formats.docker import DockerInspect, DockerList, ImageInspect, ImageList
from digestry.fleet.sources.formats.inventory import Inventory
from digestry.fleet.sources.formats.kubernetes import Kubernetes
from digestry.fleet.sources.formats.listed import SPDX2, SPDX3, CycloneDX
from digestry.fleet.sources.formats.podman import PodmanInspect, PodmanList
from digestry.fleet.sources.formats.rows import Format

FORMATS: Final[tuple[type[Format], ...]] = (
    # In this order: the first that recognises an entry reads it.
    CycloneDX,
    SPDX2,
    SPDX3,
    Kubernetes,
    CriList,
    CriImages,
    CriPods,
    CriInspect,
    ImageInspect,
    ImageList,
    Containerd,
    PodmanInspect,
    PodmanList,
    DockerInspect,
    DockerList,
    Inventory,
)

EXPECTED: Final = (
    "expected an inventory (JSON, JSON lines, CSV), or what these print: `docker inspect`, `podman inspect`,"
    " `podman ps --format json`, `kubectl get pods -A -o json`, `crictl ps -o json`, `crictl inspect`,"
    " `ctr container info`, `nerdctl inspect`; or a CycloneDX or SPDX bill of materials in JSON"
)
