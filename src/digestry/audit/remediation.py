"""Remediation of a container: the commands that a person may run to fix it. They are only written, never run.

Only known facts are used. Every untrusted word of a command is quoted for the shell, and a word that cannot
be typed (a control character in a name) is never part of a command.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias
from urllib.parse import unquote

from digestry.audit.findings import ContainerFinding
from digestry.audit.tag_verdict import UNTAGGED_HERE
from digestry.errors import InvalidReference
from digestry.inventory.observation import ContainerObservation
from digestry.model.reference import Reference
from digestry.model.text import few, printable

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
"""The names that docker and podman accept for containers, and kubernetes for any object."""
_ID: Final = re.compile(r"[0-9a-f]{12,64}", re.ASCII)
_CONTEXT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@+-]*", re.ASCII)
_OWNER: Final = "jsonpath={.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name}"
_ADDRESS_OPTION: Final = {"docker": "--host", "podman": "--url"}
_NAME_OPTION: Final = {"docker": "--context", "podman": "--connection"}


@dataclass(frozen=True, slots=True)
class Remediation:
    """``commands`` are for a shell, one after the other; ``notes`` are to be read before."""

    commands: tuple[str, ...]
    notes: tuple[str, ...]


Origins: TypeAlias = Mapping[str, str]
"""The sources, ``KIND[:WHERE]``, by the names that the user gave them."""

NO_ORIGINS: Final[Origins] = MappingProxyType({})


def plan(finding: ContainerFinding, origins: Origins = NO_ORIGINS) -> Remediation | None:
    """Return the remediation of ``finding``; None if there is nothing to fix."""
    origin = origins.get(finding.container.source, finding.container.source)
    state, tag = finding.assessment.state, finding.tag
    if state == "affected":
        if finding.fixed_image is None:
            return Remediation((), (*finding.refused, _without_fix(finding)))
        return _replaced(finding, origin, finding.fixed_image, finding.refused)
    if state == "unknown" or tag.state == UNTAGGED_HERE:
        return Remediation((), (finding.action,))
    if tag.state != "moved" or tag.digest is None:
        return None
    try:
        image = Reference.parse(finding.container.image.reference or "").or_latest()
    except InvalidReference:
        return None
    why = f"nothing is known against what runs: only if it should follow its tag to {tag.digest}"
    return _replaced(finding, origin, image, (why,))


def lines(finding: ContainerFinding, origins: Origins = NO_ORIGINS) -> list[str]:
    """Return the fix as lines of a shell script: the notes are comments. Empty if nothing is to be done.

    The finding is a comment too, so that no part of it can be taken for a command.
    """
    fix = plan(finding, origins)
    if fix is None:
        return []
    return [f"# {printable(note)}" for note in fix.notes] + list(fix.commands)


def _without_fix(finding: ContainerFinding) -> str:
    bad = few(
        advisory.statement.vulnerability
        for advisory in finding.assessment.advisories
        if advisory.statement.status == "affected"
    )
    if finding.bases:
        bases = " or ".join(str(base) for base in finding.bases)
        return f"rebuild its image on {bases}, push it, and start it from that: {bad} came with its base"
    return f"no fixed image is known for {bad}: stop it or shield it, until an advisory names one"


def _replaced(
    finding: ContainerFinding, origin: str, image: Reference, notes: tuple[str, ...]
) -> Remediation:
    seen = finding.container
    kind, _, where = origin.partition(":")
    if kind in _ADDRESS_OPTION:
        return _in_engine(seen, kind, where, image, notes)
    if kind == "kubernetes":
        return _in_kubernetes(seen, where, image, notes)
    on = f" on {seen.host}" if seen.host else ""
    return Remediation(
        (), (*notes, f"start {seen.name or seen.id or 'it'}{on} from {image} in place of what runs")
    )


# -- docker and podman --------------------------------------------------------------------------


def _in_engine(
    seen: ContainerObservation, kind: str, where: str, image: Reference, notes: tuple[str, ...]
) -> Remediation:
    program = [kind]
    if where:
        if not _CONTEXT.fullmatch(where):
            return Remediation((), (*notes, f"start it from {image} in place of what runs"))
        program += [(_ADDRESS_OPTION if "/" in where else _NAME_OPTION)[kind], where]
    if kind == "docker" and seen.namespace:
        return _in_compose(seen, program, image, notes)
    target = _target(seen)
    if target is None:
        notes = (*notes, f"its name cannot be typed safely: start it from {image} in place of what runs")
        return Remediation((), notes)
    named = _NAME.fullmatch(seen.name) is not None
    old = f"{target}-replaced"
    run = [*program, "run", "--detach"]
    if kind == "podman" and _NAME.fullmatch(seen.namespace):
        run += ["--pod", seen.namespace]
    if named:
        run += ["--name", seen.name]
    commands = [
        [*program, "pull", str(image)],
        [*program, "inspect", target],
        [*program, "stop", target],
        *([[*program, "rename", target, old]] if named else []),
        [*run, str(image)],
        [*program, "rm", old if named else target],
    ]
    missing = (
        f"fill in: its ports, volumes, environment and networks belong before the image in `{kind} run`, and "
        f"its command after it; `{kind} inspect` shows them"
    )
    return Remediation(tuple(shlex.join(command) for command in commands), (*notes, missing))


def _in_compose(
    seen: ContainerObservation, program: list[str], image: Reference, notes: tuple[str, ...]
) -> Remediation:
    where = (
        f"it belongs to the compose project {seen.namespace}: write `image: {image}` for its service in the "
        "compose file, and run this beside it"
    )
    notes = (*notes, where)
    if not _NAME.fullmatch(seen.namespace):
        return Remediation((), notes)
    compose = [*program, "compose", "--project-name", seen.namespace]
    commands = ([*compose, "pull"], [*compose, "up", "--detach"])
    return Remediation(tuple(shlex.join(command) for command in commands), notes)


def _target(seen: ContainerObservation) -> str | None:
    """Return the container's name for the engine; None if neither name nor ID can be typed."""
    if _NAME.fullmatch(seen.name):
        return seen.name
    return seen.id if _ID.fullmatch(seen.id) else None


# -- kubernetes ---------------------------------------------------------------------------------


def _in_kubernetes(
    seen: ContainerObservation, where: str, image: Reference, notes: tuple[str, ...]
) -> Remediation:
    context = unquote(where.partition("?")[0])
    words = seen.name.split("/")
    typable = all(_NAME.fullmatch(word) for word in (seen.namespace, *words))
    if not typable or len(words) not in {2, 3} or (context and not _CONTEXT.fullmatch(context)):
        return Remediation((), (*notes, f"run {image} in place of what runs"))
    kubectl = ["kubectl", *(["--context", context] if context else []), "--namespace", seen.namespace]
    container = words[-1]
    commands: list[list[str]] = []
    if len(words) == 3:  # a workload's own template: KIND/NAME/CONTAINER
        owner = "/".join(words[:2])
    else:
        owner = "KIND/NAME"
        commands.append([*kubectl, "get", "pod", words[0], "--output", _OWNER])
        missing = (
            "fill in: KIND/NAME is what the pod belongs to; `kubectl get pod` says it (a ReplicaSet belongs "
            "to the Deployment that its name begins with). A container that its template has not was "
            "injected, or is ephemeral: fix what injects it, or replace the pod"
        )
        notes = (*notes, missing)
    if image.digest is None:
        commands.append([*kubectl, "rollout", "restart", owner])
    else:
        commands.append([*kubectl, "set", "image", owner, f"{container}={image}"])
    if seen.runs:
        commands.append([*kubectl, "rollout", "status", owner])
    return Remediation(tuple(shlex.join(command) for command in commands), notes)
