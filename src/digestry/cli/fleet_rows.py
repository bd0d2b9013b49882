"""The rows of the listings of ``digestry fleet``: runs with their images, and how their times are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from digestry.cli.listing import Column
from digestry.cli.row_template import Row
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    import datetime

    from digestry.model.fleet_answers import FleetImage, FleetRun

_SHORT: Final = 12


def shown_time(value: object, whole: bool) -> str:
    """Return a time of a row to the second, or as it is if ``whole``."""
    text = str(value)
    return text if whole else f"{text[:10]} {text[11:19]}"


def short_time(at: datetime.datetime) -> str:
    """Return a time as sentences have it: to the second, in UTC."""
    return shown_time(rfc3339(at), False) + "Z"


def _state(row: Row, whole: bool) -> str:
    return str(row["state"]).replace("_", " ")


def _name(row: Row, whole: bool) -> str:
    name = str(row["workload"] or row["name"] or row["container"])
    if row["namespace"]:
        name = f"{row['namespace']}/{name}"
    return name if whole or row["name"] or row["workload"] else name[:_SHORT]


def _since(row: Row, whole: bool) -> str:
    return shown_time(row["since"], whole)


def _until(row: Row, whole: bool) -> str:
    if row["until"] is None:
        return "silent" if row["silent"] else "runs"
    after = row["until_after"]
    if after is not None and after != row["until"]:
        return f"before {shown_time(row['until'], whole)}"
    return shown_time(row["until"], whole)


def _layer(row: Row, whole: bool) -> str:
    layer = row["layer"]
    if layer is None:
        return "-"
    base = str(row["base"] or "").partition("@")[0] if not whole else str(row["base"] or "")
    short = str(layer) if whole else str(layer).partition(":")[2][:_SHORT]
    return f"{short} of {base}" if base else short


RUN_COLUMNS: Final = (
    Column("state", "text", "The audit's state of the image: affected, unknown …", show=_state),
    Column("place", "text", "The host or cluster that runs it."),
    Column("name", "text", "The container's name.", show=_name),
    Column("digest", "id", "Of the image, or null.", nullable=True, heading="IMAGE"),
    Column("since", "time", "When it started (RFC 3339).", show=_since),
    Column("until", "time", "When it ended; null while it is not known to have.", nullable=True, show=_until),
    Column("layer", "digest", "The layer that an advisory is about, or null.", nullable=True, show=_layer),
    Column("reference", "text", "The name that it was started by, or null.", nullable=True, shown=False),
    Column("vulnerabilities", "texts", "Those that affect the image.", shown=False),
    Column("fixed", "text", "The image to run instead, or null.", nullable=True, shown=False),
    Column("base", "text", "The image that the layer came with, or null.", nullable=True, shown=False),
    Column("until_after", "time", "If nobody saw the end: it was after this.", nullable=True, shown=False),
    Column("last_seen", "time", "Until when it is known to have run.", shown=False),
    Column("silent", "flag", "Whether its place no longer reports, so that its end is unknown.", shown=False),
    Column("container", "text", "The container's ID.", shown=False),
    Column("namespace", "text", "Empty if there is none.", shown=False),
    Column("workload", "text", "What it belongs to, such as a Deployment; empty if nothing.", shown=False),
    Column("node", "text", "The machine, if the place is a cluster.", shown=False),
    Column("source", "text", "The engine that its agent asks.", shown=False),
    Column("agent", "text", "The agent's ID.", shown=False),
    Column("reasons", "texts", "The audit's reasons.", shown=False),
)


def row_of(run: FleetRun, image: FleetImage | None) -> Row:
    """Return the row of a run."""
    verdict = None if image is None else image.verdict
    return {
        "state": "unknown" if verdict is None else verdict.state,
        "place": run.place,
        "name": run.name,
        "digest": None if image is None else image.digest,
        "since": rfc3339(run.from_),
        "until": None if run.until is None else rfc3339(run.until),
        "layer": None if verdict is None else verdict.layer,
        "reference": None if image is None else image.reference,
        "vulnerabilities": [] if verdict is None else list(verdict.vulnerabilities),
        "fixed": (verdict.fixed or None) if verdict is not None else None,
        "base": (verdict.base or None) if verdict is not None else None,
        "until_after": None if run.until_after is None else rfc3339(run.until_after),
        "last_seen": rfc3339(run.last_seen),
        "silent": run.silent,
        "container": run.container,
        "namespace": run.namespace,
        "workload": run.workload,
        "node": run.node,
        "source": run.source,
        "agent": run.agent,
        "reasons": [] if verdict is None else list(verdict.reasons),
    }
