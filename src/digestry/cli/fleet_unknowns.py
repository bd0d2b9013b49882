"""What is not known of a fleet: silent places, and images without a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from digestry.cli import exit_codes
from digestry.cli.output import note
from digestry.model.text import number_of

if TYPE_CHECKING:
    from digestry.model.fleet_answers import FleetSummary


def unknown_parts(summary: FleetSummary, host: str) -> list[str]:
    """Return a sentence for each reason why what runs is not known whole."""
    if not summary.agents:
        return [f"no agent has reported what runs to {host}: nothing is known"]
    found = []
    if summary.limited:
        found.append("only images of repositories that you may audit are counted")
    if summary.silent_places:
        places = number_of(summary.silent_places, "place")
        verb = "is" if summary.silent_places == 1 else "are"
        found.append(f"{places} {verb} silent: what starts and stops there is not known")
    unjudged = summary.images.get("unjudged", 0)
    if unjudged:
        verb = "is" if unjudged == 1 else "are"
        found.append(f"{number_of(unjudged, 'image')} {verb} not judged yet")
    return found


def status(
    summary: FleetSummary,
    host: str,
    *,
    affected: bool,
    uncertain: bool = False,
    by_vulnerability: bool = False,
) -> int:
    """Return the exit code: as the audit's; and say on standard error what is not known.

    ``by_vulnerability``: the question was which images have one, which is not known of unknown images.
    """
    reasons = unknown_parts(summary, host)
    unknown = summary.containers.get("unknown", 0) if by_vulnerability else 0
    if unknown:
        verdict = "runs an image whose" if unknown == 1 else "run images whose"
        may = "it may be affected" if unknown == 1 else "they may be affected"
        reasons.append(f"{number_of(unknown, 'container')} {verdict} verdict is unknown: {may}")
    for reason in reasons:
        note(f"digestry: {reason}")
    if affected:
        return exit_codes.FINDINGS
    return exit_codes.REMOTE if reasons or uncertain else exit_codes.OK
