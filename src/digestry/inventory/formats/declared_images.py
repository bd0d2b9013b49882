"""Images as orchestrators declare them: a name, with digests beside it."""

from __future__ import annotations

from typing import ClassVar, Final

from digestry.inventory.engine_values import digest_of, reference_of
from digestry.inventory.formats.container_states import State, state_of
from digestry.inventory.formats.image_ids import read_image_id
from digestry.inventory.formats.rows import DeferredImage, Reading, RowImage
from digestry.inventory.formats.single_entries import EntryFormat
from digestry.inventory.observation import Claim, ImageFacts, pinned_claim
from digestry.inventory.waiting_reasons import Waiting
from digestry.model.json_values import JsonObject
from digestry.model.platform import Platform

TEMPLATE: Final = "it says what is to be started, not what runs"
NO_DIGEST: Final = "it has only the image's name, which may have moved since: what runs is not known"
_WAITS: Final = "it has not been started yet"


class ObjectFormat(EntryFormat[JsonObject]):
    """The base of formats whose entries are JSON objects of any depth; each reads the fields that it
    knows.
    """

    entry: ClassVar[object] = JsonObject

    def shows(self, state: State, count: int = 1) -> bool:
        """Return whether to report containers in ``state``, and count those that are left out."""
        if state != "ended" or self._reading.include_stopped:
            return True
        self._reading.stopped += count
        return False


def remarks_on(state: State, reason: str) -> tuple[str, ...]:
    """Return the remark on a container's state; ``reason`` is the word for it in the file."""
    if state == "ended":
        return (f"it ended ({reason}), and does not run",)
    if state == "waits":
        return (f"{_WAITS}: {reason}",)
    if state == "" and reason:
        return (f"whether it runs is not clear: its state is {reason!r}",)
    return ()


def declared_image(
    reading: Reading,
    typed: str,
    *digests: tuple[str, str],
    state: State = "runs",
    remarks: tuple[str, ...] = (),
    template: bool = False,
    platform: Platform | None = None,
    unknown: str = NO_DIGEST,
) -> DeferredImage:
    """Return the image of a container that was started from ``typed``, with ``digests`` from other fields.

    ``digests`` are pairs of a field's name and a text with a digest of the image in any form; the most
    believable first. ``template`` means that it does not run and may be started. ``unknown`` is the remark if
    no field has a digest.
    """

    def make() -> RowImage:
        named = reference_of(typed)
        own = None if named is None else named.repository_only()
        notes = list(remarks)
        claims: list[Claim] = []
        image_id = None
        for field, text in digests if state != "waits" else ():
            bare = digest_of(text)
            if bare is not None and "digest" in field.lower():
                # A digest of the repository in the name; its kind is not known.
                claims.append(Claim(bare, "unknown", own, field, "inventory", obtained=True))
            elif text:
                read = read_image_id(text, runtime="", own=own, field=field)
                claims += read.claims
                notes += read.remarks
                image_id = image_id or read.image_id
        pinned = pinned_claim(named, "the image's name")
        if pinned is not None and state != "waits":
            claims.append(pinned)
        if not claims and not template and state != "waits":
            notes.append(unknown)
        waiting: Waiting = "starting" if state == "waits" else ""
        facts = ImageFacts(typed or None, tuple(dict.fromkeys(claims)), image_id, platform=platform)
        return RowImage(facts, tuple(dict.fromkeys(notes)), runs=not template, waiting=waiting)

    key = ("told", typed, digests, state, remarks, template, str(platform or ""), unknown)
    return reading.shared(key, make)


def state_and_remarks(text: str) -> tuple[State, tuple[str, ...]]:
    """Return the state that the word ``text`` means, and the remark on it. No word means that it runs."""
    state = state_of(text) if text else "runs"
    return state, remarks_on(state, text)
