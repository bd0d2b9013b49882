"""The copy over HTTP: read-only, and marked in every answer as a copy with its age."""

from __future__ import annotations

import datetime
import json
import re
import threading
from collections.abc import Callable
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from digestry.errors import DigestryError, InvalidDigest, InvalidReference, StorageError
from digestry.follower.copied_history import microseconds
from digestry.follower.follower import Follower
from digestry.model import age_answers, media_types
from digestry.model.descriptor import encode_hook
from digestry.model.digest import Digest
from digestry.model.history import (
    JournalPage,
    TagAsOf,
    TagEvent,
    TagsAsOf,
    TagsForDigest,
    tag_history_entry,
)
from digestry.model.reference import check_repository, check_tag
from digestry.model.tag_age import TagMove, decide, from_moves, from_observations
from digestry.model.timestamps import parse_rfc3339, rfc3339
from digestry.translog.entries import Openings
from digestry.translog.log_keys import LogKey, LogKeys
from digestry.translog.merkle import LARGEST_SIZE
from digestry.translog.tiles import parse_path

HEADER: Final = "Digestry-Copy"
"""The header of every answer: of which registry it is a copy, and how old."""
_MOST: Final = 1000
_PAGE: Final = 100
_ALL: Final = 1_000_000
_LONGEST_AGE: Final = 3650 * 86400
_AGE: Final = re.compile(r"([0-9]{1,9})(s|min|h|d|w)?", re.ASCII)
_UNITS: Final = {None: 1, "s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SECOND: Final = 1_000_000
_INDEX: Final = "application/vnd.oci.image.index.v1+json"


class _Refusal(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class CopyServer:
    """Answers questions about the history, and serves the log, from what ``follower`` copied."""

    def __init__(self, follower: Follower, now: Callable[[], datetime.datetime]) -> None:
        self._follower = follower
        self._now = now
        self._lock = threading.Lock()
        self._problem = ""

    def heard(self, problem: str) -> None:
        """Note the error of the last look at the original; empty without one."""
        with self._lock:
            self._problem = problem

    def application(self) -> Starlette:
        """Return the ASGI application."""
        name = "/v2/{name:path}"
        routes = [
            ("/v2/", self._base),
            ("/healthz", self._health),
            ("/metrics", self._metrics),
            ("/v2/_catalog", self._catalog),
            ("/v2/_oci/ext/discover", self._discover),
            ("/v2/_digestry/log/checkpoint", self._checkpoint),
            ("/v2/_digestry/log/keys", self._keys),
            ("/v2/_digestry/log/tile/{path:path}", self._tile),
            ("/v2/_digestry/whose/{digest}", self._whose),
            (f"{name}/_oci/tag-history/{{tag}}", self._tag_history),
            (f"{name}/_digestry/journal", self._journal),
            (f"{name}/_digestry/tag/{{tag}}", self._tag),
            (f"{name}/_digestry/tags", self._tags),
            (f"{name}/_digestry/whose/{{digest}}", self._whose),
            (f"{name}/_digestry/age/{{tag}}", self._age),
            (f"{name}/_digestry/log/openings", self._openings),
            (f"{name}/tags/list", self._tag_list),
        ]
        found = [Route(path, self._route(answer), methods=["GET"]) for path, answer in routes]
        # The digest of a tag is known here, and the content of no image.
        head = Route(f"{name}/manifests/{{tag}}", self._route(self._head_manifest), methods=["HEAD"])
        return Starlette(
            routes=[*found, head],
            exception_handlers={404: self._not_found, 405: self._not_found},
        )

    def _route(self, answer: Callable[[Request], Response]) -> Callable[[Request], Any]:
        async def respond(request: Request) -> Response:
            response = await run_in_threadpool(self._answered, answer, request)
            response.headers.update(self._marks())
            return response

        return respond

    def _answered(self, answer: Callable[[Request], Response], request: Request) -> Response:
        try:
            return answer(request)
        except _Refusal as error:
            return _error(error.status, error.code, error.message)
        except (InvalidReference, InvalidDigest) as error:
            return _error(400, "NAME_INVALID", error.message)
        except StorageError as error:
            return _error(503, "UNAVAILABLE", error.message)
        except DigestryError as error:
            return _error(500, "UNKNOWN", error.message)

    async def _not_found(self, request: Request, _: Exception) -> Response:
        host = self._follower.host
        message = f"this is a copy of the history of {host}, and has no {request.url.path}"
        response = _error(404, "UNSUPPORTED", message)
        response.headers.update(self._marks())
        return response

    def _marks(self) -> dict[str, str]:
        follower = self._follower
        at = follower.status.verified_at
        age = "unknown" if at is None else str(max(0, int((self._now() - at).total_seconds())))
        seen = "never" if at is None else rfc3339(at)
        text = f"of={follower.host}; size={follower.copy.size}; verified={seen}; age={age}"
        return {HEADER: text + ("; alarm" if follower.alarms.current is not None else "")}

    # -- about the copy -----------------------------------------------------------------------

    def _base(self, _: Request) -> Response:
        return _json({"copyOf": self._follower.host})

    def _health(self, _: Request) -> Response:
        """Answer 200 as long as the copy can be read; what is wrong with the original is said."""
        alarm = self._follower.alarms.current
        at = self._follower.status.verified_at
        with self._lock:
            problem = self._problem
        return _json(
            {
                "copyOf": self._follower.host,
                "size": self._follower.copy.size,
                "verifiedAt": None if at is None else rfc3339(at),
                "alarm": None if alarm is None else alarm.message,
                "problem": problem or None,
            }
        )

    def _metrics(self, _: Request) -> Response:
        from prometheus_client import CollectorRegistry, Gauge, generate_latest  # noqa: PLC0415 - few ask

        registry = CollectorRegistry()
        follower = self._follower
        with self._lock:
            failing = bool(self._problem)
        at = follower.status.verified_at
        for name, text, value in (
            ("size", "Entries of the log that were copied and verified.", follower.copy.size),
            ("verified_timestamp_seconds", "When the copy was compared last.", at.timestamp() if at else 0),
            (
                "alarm",
                "1 while the log contradicts itself.",
                follower.alarms.current is not None,
            ),
            ("failing", "1 if the last look did not succeed.", failing),
        ):
            gauge = Gauge(f"digestry_follow_{name}", text, ["registry"], registry=registry)
            gauge.labels(follower.host).set(float(value))
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    def _discover(self, _: Request) -> Response:
        endpoints = [
            "journal",
            "tag/<tag>",
            "tags",
            "whose/<digest>",
            "age/<tag>",
            "log/checkpoint",
            "log/keys",
            "log/tile/<path>",
            "log/openings",
        ]
        extension = {
            "name": "_digestry",
            "description": f"A copy of the history of {self._follower.host}.",
            "endpoints": [f"_digestry/{one}" for one in endpoints],
        }
        history = {"name": "_oci", "endpoints": ["_oci/tag-history/<tag>", "_oci/ext/discover"]}
        return _json({"extensions": [extension, history]})

    # -- the log ------------------------------------------------------------------------------

    def _checkpoint(self, _: Request) -> Response:
        if not self._follower.copy.note:
            raise _Refusal(404, "UNKNOWN", "nothing was copied yet")
        return PlainTextResponse(self._follower.copy.note, headers={"Cache-Control": "no-cache"})

    def _keys(self, _: Request) -> Response:
        keys = self._follower.status.keys
        if not keys:
            raise _Refusal(404, "UNKNOWN", "nothing was copied yet")
        origin = self._follower.copy.checkpoint.origin
        return _json(LogKeys(origin, tuple(LogKey(key.vkey, rfc3339(key.since)) for key in keys)))

    def _tile(self, request: Request) -> Response:
        try:
            tile = parse_path(f"tile/{request.path_params['path']}")
        except ValueError as error:
            raise _Refusal(400, "UNSUPPORTED", str(error)) from error
        content = self._follower.copy.read(tile) if tile.exists(self._follower.copy.size) else None
        if content is None:
            raise _Refusal(404, "UNKNOWN", f"this copy has no {tile.path}")
        headers = {"Cache-Control": "max-age=31536000, immutable"}
        return Response(content, media_type="application/octet-stream", headers=headers)

    def _openings(self, request: Request) -> Response:
        name, limit = self._name(request), _number(request, "n", _PAGE)
        tag = request.query_params.get("tag")
        found = self._follower.history.openings(
            self._follower.copy.size,
            name,
            tag=None if tag is None else check_tag(tag),
            first=_number(request, "from", 0, least=0, most=LARGEST_SIZE),
            limit=limit + 1,
        )
        headers = {}
        if len(found) > limit:
            url = request.url.include_query_params(**{"n": limit, "from": found[limit].index})
            headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
        return _json(Openings(name, tuple(found[:limit])), headers)

    # -- the history --------------------------------------------------------------------------

    def _journal(self, request: Request) -> Response:
        name, limit = self._name(request), _number(request, "n", _PAGE)
        tag = request.query_params.get("tag")
        events = self._events(request, name, None if tag is None else check_tag(tag), limit + 1)
        page = tuple(events[:limit])
        return _json(JournalPage(name, page), self._next(request, page, more=len(events) > limit))

    def _tag_history(self, request: Request) -> Response:
        name, limit = self._name(request, known=False), _number(request, "n", _PAGE)
        events = self._events(request, name, check_tag(request.path_params["tag"]), limit + 1)
        page = tuple(events[:limit])
        body = {
            "schemaVersion": 2,
            "mediaType": _INDEX,
            "manifests": [tag_history_entry(one) for one in page],
        }
        return _json(body, self._next(request, page, more=len(events) > limit), media_types.OCI_INDEX)

    def _events(self, request: Request, name: str, tag: str | None, limit: int) -> list[TagEvent]:
        return self._follower.history.events(
            self._follower.copy.size,
            name,
            tag=tag,
            before=_time(request, "before"),
            since=_time(request, "since"),
            until=_time(request, "until", last=True),
            limit=limit,
        )

    def _tag(self, request: Request) -> Response:
        name, at = self._name(request), self._moment(request)
        tag = check_tag(request.path_params["tag"])
        spans = self._follower.history.spans_at(self._follower.copy.size, name, microseconds(at), tag=tag)
        if not spans:
            raise _Refusal(404, "MANIFEST_UNKNOWN", f"there was no tag {tag} in {name} at {rfc3339(at)}")
        return _json(TagAsOf(name, at, spans[0]))

    def _tags(self, request: Request) -> Response:
        name, at, limit = self._name(request), self._moment(request), _number(request, "n", _PAGE)
        after = request.query_params.get("last", "")
        spans = self._follower.history.spans_at(self._follower.copy.size, name, microseconds(at))
        page = [span for span in spans if span.tag > after][: limit + 1]
        headers = {}
        if len(page) > limit:
            url = request.url.include_query_params(n=limit, last=page[limit - 1].tag, at=rfc3339(at))
            headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
        return _json(TagsAsOf(name, at, tuple(page[:limit])), headers)

    def _whose(self, request: Request) -> Response:
        digest = Digest.parse(request.path_params["digest"])
        name = self._name(request) if "name" in request.path_params else None
        found = self._follower.history.spans_of(
            self._follower.copy.size, str(digest), repository=name, limit=_MOST
        )
        return _json(TagsForDigest(digest, tuple(found)))

    def _age(self, request: Request) -> Response:
        """Answer with what a tag resolves to under a minimum age, as far as the copy knows.

        Its present is the time at which it was compared with its original last.
        """
        name, tag = self._name(request), check_tag(request.path_params["tag"])
        least = _length(request.query_params.get("min-age", "0")) * _SECOND
        at = self._follower.status.verified_at
        if at is None:
            raise _Refusal(503, "UNAVAILABLE", "the copy was not compared with its original yet")
        now = microseconds(at)
        events = self._follower.history.events(self._follower.copy.size, name, tag=tag, limit=_ALL)[::-1]
        moves = [
            TagMove(
                microseconds(one.at),
                None if one.to_digest is None else str(one.to_digest),
                None if one.not_before is None else microseconds(one.not_before),
            )
            for one in events
        ]
        if not moves or moves[-1].digest is None:
            raise _Refusal(404, "MANIFEST_UNKNOWN", f"there is no tag {tag} in {name}")
        observed = any(event.observed_in for event in events)
        # Of a tag that was seen in a third registry, the log has the moves, and not when it was looked at.
        record = from_observations(moves[-1].digest, moves, (), now) if observed else from_moves(moves, now)
        basis: age_answers.Basis = "observations" if observed else "journal"
        aged = decide(record, least, now)
        return _json(age_answers.answer(name, tag, aged, current=record.current, basis=basis, now=now))

    def _head_manifest(self, request: Request) -> Response:
        """Answer a HEAD with the digest, type and size of what a tag points to, by the copy."""
        name, tag = self._name(request), check_tag(request.path_params["tag"])
        now = microseconds(self._now())
        spans = self._follower.history.spans_at(self._follower.copy.size, name, now, tag=tag)
        if not spans:
            raise _Refusal(404, "MANIFEST_UNKNOWN", f"there is no tag {tag} in {name}")
        headers = {"Docker-Content-Digest": str(spans[0].digest), "Content-Length": str(spans[0].size)}
        return Response(headers=headers, media_type=spans[0].media_type)

    def _tag_list(self, request: Request) -> Response:
        name = self._name(request)
        now = microseconds(self._now())
        spans = self._follower.history.spans_at(self._follower.copy.size, name, now)
        return _json({"name": name, "tags": [span.tag for span in spans]})

    def _catalog(self, _: Request) -> Response:
        return _json({"repositories": self._follower.history.repositories(self._follower.copy.size)})

    # -- parameters ---------------------------------------------------------------------------

    def _name(self, request: Request, *, known: bool = True) -> str:
        name = check_repository(request.path_params["name"])
        if known and not self._follower.history.has(self._follower.copy.size, name):
            raise _Refusal(404, "NAME_UNKNOWN", f"repository {name} is not known to this copy")
        return name

    def _moment(self, request: Request) -> datetime.datetime:
        at = _time(request, "at", last=True)
        if at is None:
            return self._now()
        return datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(microseconds=at)

    @staticmethod
    def _next(request: Request, page: tuple[TagEvent, ...], *, more: bool) -> dict[str, str]:
        if not more or not page:
            return {}
        url = request.url.include_query_params(n=len(page), before=rfc3339(page[-1].at))
        return {"Link": f'<{url.path}?{url.query}>; rel="next"'}


def _number(request: Request, name: str, default: int, *, least: int = 1, most: int = _MOST) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise _Refusal(400, "UNSUPPORTED", f"{name}: a number is required")
    return max(least, min(most, int(text)))


def _time(request: Request, name: str, *, last: bool = False) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        found = parse_rfc3339(text)
    except ValueError as error:
        raise _Refusal(400, "UNSUPPORTED", f"{name}: a time is required, as RFC 3339 has it") from error
    return microseconds(found.last if last else found.first)


def _length(text: str) -> int:
    match = _AGE.fullmatch(text)
    seconds = None if match is None else int(match[1]) * _UNITS[match[2]]
    if seconds is None or seconds > _LONGEST_AGE:
        raise _Refusal(400, "UNSUPPORTED", "min-age: seconds are required, or such as 7d, 12h or 30min")
    return seconds


def _json(
    value: object, headers: dict[str, str] | None = None, media_type: str = "application/json"
) -> Response:
    return Response(msgspec.json.encode(value, enc_hook=encode_hook), headers=headers, media_type=media_type)


def _error(status: int, code: str, message: str) -> Response:
    body = json.dumps({"errors": [{"code": code, "message": message}]})
    return Response(body, status, media_type="application/json")
