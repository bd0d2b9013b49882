"""A Kubernetes collection over many rounds: listed once, then updated by watches.

A round never shows outdated objects of the round before. Each one asks the server for the present version of
the list, and then for all changes since the last round, by a short watch that ends with a bookmark of that
version, or when its time is over. After any failure of that, the collection is listed anew.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Final, TypeAlias

from digestry.errors import (
    DigestryError,
    ProtocolViolation,
    Refused,
    RemoteNotFound,
    Unauthorized,
    Unreachable,
)
from digestry.inventory.kube.api import GONE, KubeAPI, Page
from digestry.inventory.kube.watch import Change
from digestry.model.json_values import JsonObject, as_object, as_text

SECONDS: Final = 3
"""How long a watch is requested. Servers send a bookmark two seconds before the end, or with the end."""

_TRIES: Final = 3
_FIRST_PAUSE: Final = 0.2
_EARLY: Final = 0.5
_NUMBER: Final = re.compile(r"[0-9]{1,20}", re.ASCII)
_NOT_TO_BE_HAD: Final = frozenset({400, 403, 404, 405, 406, 501})
_NOT_NEEDED: Final = ("managedFields", "annotations")

_Key: TypeAlias = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The objects as they are now. ``notes`` say why they were listed anew where they should have been
    watched, and ``problems`` which events of the watch could not be understood."""

    objects: list[object]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Informer:
    """The collection at ``path``, of ``resource`` (``pods``) and ``kind`` (``Pod``). ``seconds`` are of one
    watch, and whole."""

    def __init__(
        self, path: str, resource: str, kind: str, query: dict[str, str], *, seconds: int | None = None
    ) -> None:
        self._path = path
        self._resource = resource
        self._kind = kind
        self._query = query
        self._seconds = seconds or SECONDS
        self._objects: dict[_Key, JsonObject] = {}
        self._version = ""
        self._watchable = True
        self._watched = False

    def refresh(self, api: KubeAPI) -> Refreshed:
        """Return the objects as they are now.

        Raises as :meth:`KubeAPI.get` does; the next round then lists them anew.
        """
        notes: list[str] = []
        problems: list[str] = []
        try:
            if self._version and self._is_caught_up(api, notes, problems):
                return Refreshed(list(self._objects.values()))
            return Refreshed(self._list(api), tuple(notes), tuple(problems))
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        self._objects, self._version = {}, ""

    def _list(self, api: KubeAPI) -> list[object]:
        self._forget()
        objects, version = api.whole(self._path, f"list {self._resource}", **self._query)
        if not self._watchable or not version:
            return objects
        kept = {key: _slim(as_object(value)) for value in objects if (key := _key(value)) is not None}
        # An object without a name cannot be matched with the events of a watch: it is listed each time.
        if len(kept) == len(objects):
            self._objects, self._version = kept, version
        return objects

    def _is_caught_up(self, api: KubeAPI, notes: list[str], problems: list[str]) -> bool:
        """Return whether all changes until now were applied; if not, ``notes`` or ``problems`` may say
        why."""
        present = api.page(self._path, f"list {self._resource}", self._query, limit=1)
        if _reaches(self._version, present.version) and self._version != present.version:
            return False  # the server was recreated: its versions began anew
        try:
            # Of one version nothing can have changed; but whether it may watch is known only when it did.
            quiet = self._watched and self._version == present.version
            beyond = not quiet and self._catch_up(api, present)
        except ProtocolViolation as error:
            problems.append(f"{error.message}; all {self._resource} were listed instead")
            return False
        except Refused as error:
            if error.status == GONE:
                return False
            if error.status in _NOT_TO_BE_HAD:
                self._watchable = False
                notes.append(f"{error.message}; all {self._resource} are listed in each round")
            else:
                notes.append(f"{error.message}; all {self._resource} were listed instead")
            return False
        except DigestryError as error:
            notes.append(f"{error.message}; all {self._resource} were listed instead")
            return False
        self._watched = True
        expected = None
        if present.remaining is not None or not present.following:
            expected = len(present.objects) + (present.remaining or 0)
        if not beyond and expected is not None and expected != len(self._objects):
            notes.append(
                f"the watch reported {len(self._objects)} {self._resource} and the list has {expected}; "
                f"all {self._resource} were listed instead"
            )
            return False
        return True

    def _catch_up(self, api: KubeAPI, present: Page) -> bool:
        """Learn the changes until ``present``; return whether there were later ones, too."""
        end = time.monotonic() + self._seconds
        pause = _FIRST_PAUSE
        beyond = False
        for attempt in range(1, _TRIES + 1):
            left = end - time.monotonic()
            seconds = self._seconds if left <= 0 or attempt == 1 else max(1, round(left))
            begun = time.monotonic()
            try:
                for change in api.watch(
                    self._path,
                    f"watch {self._resource}",
                    kind=self._kind,
                    version=self._version,
                    seconds=seconds,
                    **self._query,
                ):
                    beyond |= self._learn(change, present)
                    if _reaches(self._version, present.version):
                        return beyond
                if time.monotonic() - begun >= seconds - _EARLY:
                    return beyond
                failure: DigestryError = Unreachable(
                    f"{api.server}{self._path}: the watch ends at once, again and again"
                )
            except (Unauthorized, RemoteNotFound):
                raise
            except Refused as error:
                if error.status < 500 and error.status != 429:
                    raise
                failure = error
            except Unreachable as error:
                failure = error
                if time.monotonic() - begun >= seconds:
                    raise  # it took all the time that there was
            if attempt == _TRIES:
                raise failure
            time.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")

    def _learn(self, change: Change, present: Page) -> bool:
        """Take in one change; return whether it is later than ``present``."""
        if change.kind != "mark":
            key = _key(change.object) or ("", "")
            known = self._objects.get(key)
            if change.kind == "is":
                self._objects[key] = _slim(change.object)
            elif known is None or _uid(known) == _uid(change.object):
                self._objects.pop(key, None)
            else:
                raise ProtocolViolation(
                    f"{self._path}: the watch reports the end of a {self._kind} that has been replaced"
                )
        self._version = change.version
        return change.kind != "mark" and not _reaches(present.version, change.version)


def _reaches(version: str, other: str) -> bool:
    """Return whether ``version`` is ``other`` or later. Versions are numbers, and can be compared; False if
    one of them is none."""
    return bool(_NUMBER.fullmatch(version) and _NUMBER.fullmatch(other) and int(version) >= int(other))


def _key(value: object) -> _Key | None:
    metadata = as_object(as_object(value).get("metadata"))
    name = as_text(metadata.get("name"))
    return (as_text(metadata.get("namespace")), name) if name else None


def _uid(value: JsonObject) -> str:
    return as_text(as_object(value.get("metadata")).get("uid"))


def _slim(value: JsonObject) -> JsonObject:
    """Return an object without the large parts that are not read here."""
    metadata = as_object(value.get("metadata"))
    return {**value, "metadata": {key: field for key, field in metadata.items() if key not in _NOT_NEEDED}}
