"""The table of all routes, and the search for the route of a path.

The application, the audit log, the metrics, ``_oci/ext/discover`` and docs/http-api.md read this table.
Repository names have slashes in them, so that a path is read from its end. That is a few string operations;
a table of regular expressions costs several times as much (bench/README.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict, Unpack

from digestry.registry.authorization import (
    AGENT,
    AUDIT,
    AUDITOR,
    BY_METHOD,
    CATALOG,
    DELETE,
    LOG,
    LOGIN,
    METRICS,
    MOVE_TAG,
    NAME,
    OPENINGS,
    PULL,
    PUSH,
    READER,
    WITNESS,
    WITNESSED,
    check_log,
    check_metrics,
    check_witness,
)
from digestry.registry.resources import (
    advisories,
    ages,
    base,
    blobs,
    changes,
    digests,
    discovery,
    fleet,
    fleet_reports,
    health,
    journal,
    layers,
    manifests,
    metrics,
    observations,
    referrers,
    resolution,
    sightings,
    tag_history,
    tags,
    tokens,
    transparency,
    uploads,
    upstream,
)
from digestry.registry.route import NOTHING, OTHER, UNKNOWN, Access, Handler, Operation, Route

_API: Final = "/v2/"
_NAME: Final = "<name>"


class _Flags(TypedDict, total=False):
    """The fields of a :class:`Route` that most routes leave as they are."""

    check: Callable[[Any, str, str], None]
    upstream: bool
    identified: bool
    changes: bool
    audited: bool
    acts: bool
    refusals_only: bool
    agents: bool
    deep: bool
    unlisted: frozenset[str]


def _read(handler: Handler, access: Access = PULL, upstream: Handler | None = None) -> list[Operation]:
    return [Operation(method, handler, access, upstream=upstream) for method in ("GET", "HEAD")]


def _route(
    path: str,
    metric: str,
    *operations: Operation,
    refused: Access = BY_METHOD,
    local_copy: bool = False,
    **flags: Unpack[_Flags],
) -> Route:
    by_method = {operation.method: operation for operation in operations}
    return Route(path, metric, by_method, refused, local_copy=local_copy, **flags)


def _extension(
    path: str, metric: str, *operations: Operation, refused: Access = BY_METHOD, **flags: Unpack[_Flags]
) -> Route:
    return _route(path, metric, *operations, refused=refused, local_copy=True, **flags)


ROUTES: Final[tuple[Route, ...]] = (
    *(
        _route(path, "base", *_read(base.get_base, LOGIN), refused=NOTHING, agents=True)
        for path in ("/v2/", "/v2")
    ),
    _route("/v2/_catalog", "catalog", *_read(tags.list_repositories, CATALOG), refused=CATALOG),
    _route(
        "/v2/<name>/manifests/<reference>",
        "manifest",
        *_read(manifests.get_manifest, upstream=upstream.get_manifest),
        Operation("PUT", manifests.put_manifest, PUSH, "push-manifest"),
        Operation(
            "DELETE", manifests.delete_manifest, DELETE, "delete-manifest", upstream=upstream.delete_manifest
        ),
        upstream=True,
    ),
    _route(
        "/v2/<name>/blobs/<digest>",
        "blob",
        *_read(blobs.get_blob, upstream=upstream.get_blob),
        Operation("DELETE", blobs.delete_blob, DELETE, "delete-blob", upstream=upstream.delete_blob),
        check=blobs.check_digest,
        upstream=True,
    ),
    *(
        _route(
            path,
            "upload",
            Operation("POST", uploads.begin_upload, PUSH, "begin-upload"),
            refused=PUSH,
            upstream=True,
        )
        for path in ("/v2/<name>/blobs/uploads/", "/v2/<name>/blobs/uploads")
    ),
    _route(
        "/v2/<name>/blobs/uploads/<id>",
        "upload",
        *_read(uploads.get_upload, PUSH),
        Operation("PATCH", uploads.continue_upload, PUSH, "continue-upload"),
        Operation("PUT", uploads.finish_upload, PUSH, "push-blob"),
        Operation("DELETE", uploads.cancel_upload, PUSH, "cancel-upload"),
        refused=PUSH,
        check=uploads.check_id,
        upstream=True,
        unlisted=frozenset({"HEAD"}),  # the standard has no HEAD of an upload
    ),
    _route(
        "/v2/<name>/tags/list", "tags", *_read(tags.list_tags, upstream=upstream.list_tags), upstream=True
    ),
    _route(
        "/v2/<name>/referrers/<digest>",
        "referrers",
        *_read(referrers.list_referrers, upstream=upstream.list_referrers),
        upstream=True,
    ),
    _extension("/v2/<name>/_oci/tag-history/<tag>", "history", *_read(journal.get_tag_history)),
    *(
        _route(path, "discover", *_read(discovery.lister(lambda: ROUTES), LOGIN), refused=LOGIN, agents=True)
        for path in ("/v2/_oci/ext/discover", "/v2/<name>/_oci/ext/discover")
    ),
    _extension("/v2/<name>/_digestry/journal", "journal", *_read(journal.get_journal)),
    _extension("/v2/<name>/_digestry/holders/<digest>", "holders", *_read(digests.get_holders)),
    _extension("/v2/<name>/_digestry/layers/<digest>", "layers", *_read(layers.list_images)),
    _route(
        "/v2/_digestry/layers/<digest>",
        "layers",
        *_read(layers.list_images_anywhere, CATALOG),
        refused=CATALOG,
    ),
    _extension("/v2/<name>/_digestry/advisories", "advisories", *_read(advisories.list_advisories)),
    _extension("/v2/<name>/_digestry/tag/<tag>", "tag", *_read(tag_history.get_tag)),
    _extension("/v2/<name>/_digestry/tags", "tags", *_read(tag_history.list_tags_at)),
    _extension("/v2/<name>/_digestry/whose/<digest>", "whose", *_read(tag_history.list_tags_for_digest)),
    _route(
        "/v2/_digestry/whose/<digest>",
        "whose",
        *_read(tag_history.list_tags_for_digest_anywhere, CATALOG),
        refused=CATALOG,
    ),
    _extension("/v2/<name>/_digestry/digests/<prefix>", "digests", *_read(digests.list_digests)),
    _route(
        "/v2/_digestry/digests/<prefix>",
        "digests",
        *_read(digests.list_digests_anywhere, CATALOG),
        refused=CATALOG,
    ),
    _extension(
        "/v2/<name>/_digestry/observations/<tag>", "observations", *_read(observations.list_observations)
    ),
    _route(
        "/v2/_digestry/observed", "observations", *_read(observations.get_report, CATALOG), refused=CATALOG
    ),
    _route("/v2/_digestry/changes", "changes", *_read(changes.get_changes, READER), refused=NOTHING),
    _extension(
        "/v2/<name>/_digestry/restore/<tag>",
        "restore",
        Operation("POST", tag_history.restore_tag, PUSH, "restore-tag"),
    ),
    _extension("/v2/<name>/_digestry/age/<tag>", "age", *_read(ages.get_age)),
    _extension(
        "/v2/<name>/_digestry/age-overrides",
        "age",
        *_read(ages.list_overrides),
        Operation("POST", ages.allow, MOVE_TAG, "allow-young"),
        acts=True,
    ),
    _extension(
        "/v2/<name>/_digestry/age-overrides/<number>",
        "age",
        Operation("DELETE", ages.revoke, MOVE_TAG, "revoke-young"),
        refused=MOVE_TAG,
        acts=True,
    ),
    _route(
        "/v2/_digestry/resolve",
        "resolve",
        Operation("POST", resolution.resolve, READER),
        refused=NOTHING,
        changes=False,
        audited=False,
    ),
    _route(
        "/v2/_digestry/sightings",
        "sightings",
        Operation("POST", sightings.note_sightings, NAME, "note-sightings"),
        refused=NOTHING,
    ),
    _extension(
        "/v2/<name>/_digestry/sightings/<digest>", "sightings", *_read(sightings.list_sightings, AUDIT)
    ),
    _route(
        "/v2/_digestry/fleet/reports",
        "fleet",
        Operation("POST", fleet_reports.record_report, AGENT, "report-fleet"),
        refused=AGENT,
        refusals_only=True,
        agents=True,
    ),
    *(
        _route(f"/v2/_digestry/fleet/{what}", "fleet", *_read(handler, AUDITOR), refused=AUDITOR)
        for what, handler in (
            ("runs", fleet.list_runs),
            ("changes", fleet.list_changes),
            ("places", fleet.list_places),
            ("summary", fleet.get_summary),
            ("timeline", fleet.get_timeline),
        )
    ),
    _route(
        "/v2/_digestry/log/checkpoint",
        "log",
        *_read(transparency.get_checkpoint, LOG),
        refused=LOG,
        check=check_log,
    ),
    _route("/v2/_digestry/log/keys", "log", *_read(transparency.get_keys, LOG), refused=LOG, check=check_log),
    _route(
        "/v2/_digestry/log/tile/<path>",
        "log",
        *_read(transparency.get_tile, LOG),
        refused=LOG,
        check=check_log,
        deep=True,
    ),
    _route(
        "/v2/_digestry/log/witness/add-checkpoint",
        "log",
        Operation("POST", transparency.add_checkpoint, WITNESS, "cosign-checkpoint"),
        refused=NOTHING,
        check=check_witness,
    ),
    _route(
        "/v2/_digestry/log/witness/<path>",
        "log",
        *_read(transparency.get_witnessed, WITNESSED),
        refused=NOTHING,
        check=check_witness,
        deep=True,
    ),
    _extension(
        "/v2/<name>/_digestry/log/openings",
        "log",
        *_read(transparency.get_openings, OPENINGS),
        check=check_log,
    ),
    _route(
        "/token",
        "token",
        Operation("GET", tokens.get_token, NOTHING),
        Operation("POST", tokens.post_token, NOTHING),
        refused=NOTHING,
        check=tokens.check_enabled,
        identified=False,
        changes=False,
        audited=False,
    ),
    _route(
        "/metrics",
        "metrics",
        *_read(metrics.get_metrics, METRICS),
        refused=NOTHING,
        check=check_metrics,
        audited=False,
    ),
    *(
        _route(path, "health", *_read(handler, NOTHING), refused=NOTHING, identified=False, audited=False)
        for path, handler in (
            ("/livez", health.get_alive),
            ("/readyz", health.get_ready),
            ("/healthz", health.get_ready),
        )
    ),
)
"""All that this registry answers."""

_NO_EXTENSION: Final = _extension("", OTHER, *_read(base.refuse_extension), audited=False)


@dataclass(slots=True)
class _Branch:
    """The routes of paths that differ after one word.

    ``before`` is the text between the repository's name and that word. ``fixed`` are routes by the text after
    it, and ``variable`` is the route of any other text.
    """

    before: str = ""
    fixed: dict[str, Route] = field(default_factory=dict)
    variable: Route | None = None

    def add(self, last: str, route: Route) -> None:
        if last.startswith("<"):
            self.variable = route
        else:
            self.fixed[last] = route


_EXACT: Final[dict[str, Route]] = {}
"""Routes without a variable part, by their path."""
_BELOW: Final[dict[str, Route]] = {}
"""Routes without a repository, by their path without ``/v2/`` and its last, variable segment."""
_DEEP: Final[dict[str, Route]] = {}
"""Routes without a repository whose variable part has several segments, by their path before that."""
_BRANCHES: Final[dict[str, _Branch]] = {}
"""Routes of repositories, by the last segment but one."""
_EXTENSIONS: Final[dict[str, _Branch]] = {}
"""Routes of repositories' extensions, by ``/EXTENSION/WORD``."""


def _add(route: Route) -> None:
    head, _, last = route.path.removeprefix(_API).rpartition("/")
    inside = route.path.removeprefix(_API + _NAME)
    if "<" not in route.path:
        _EXACT[route.path] = route
    elif route.deep:
        _DEEP[route.path.partition("<")[0]] = route
    elif inside == route.path:
        _BELOW[head] = route
    elif inside.startswith("/_"):
        extension, word, *rest = inside.removeprefix("/").split("/")
        _EXTENSIONS.setdefault(f"/{extension}/{word}", _Branch()).add("".join(rest), route)
    else:
        name, _, word = head.rpartition("/")
        _BRANCHES.setdefault(word, _Branch(name.removeprefix(_NAME))).add(last, route)


for _each in ROUTES:
    _add(_each)


def find(path: str) -> tuple[Route, str, str]:
    """Return the route of a path, the repository's name in it, and its last segment.

    The route of an unknown path is :data:`UNKNOWN`.
    """
    if path.startswith(_API):
        head, _, last = path[len(_API) :].rpartition("/")
        name, _, word = head.rpartition("/")
        branch = _BRANCHES.get(word)
        if branch is not None and (not branch.before or name.endswith(branch.before)):
            route = branch.fixed.get(last) or branch.variable
            if route is not None:
                return route, name.removesuffix(branch.before), last
        if head in _BELOW:
            return _BELOW[head], "", last
        if "/_" in path and path not in _EXACT:
            for start, route in _DEEP.items():
                if path.startswith(start) and len(path) > len(start):
                    return route, "", path[len(start) :]
            return _find_extension(path[len(_API) :])
    return _EXACT.get(path, UNKNOWN), "", ""


def _find_extension(path: str) -> tuple[Route, str, str]:
    for extension in ("/_oci/", "/_digestry/"):
        name, found, what = path.partition(extension)
        word, slash, rest = what.partition("/")
        branch = _EXTENSIONS.get(extension + word)
        if branch is not None:
            route = branch.fixed.get(rest) or (branch.variable if slash else None)
            if route is not None and (rest or route is not branch.variable or extension == "/_oci/"):
                return route, name, rest
        if found and extension == "/_digestry/":
            return _NO_EXTENSION, name, rest
    return UNKNOWN, "", ""


def table() -> str:
    """Return the table of all routes in Markdown, as docs/http-api.md has it."""
    lines = ["| path | method | needs | audit event | metrics |", "| --- | --- | --- | --- | --- |"]
    for route in ROUTES:
        rows: dict[tuple[str, str], list[str]] = {}
        for operation in route.operations.values():
            rows.setdefault((operation.access.name, operation.audit_event), []).append(operation.method)
        lines += [
            f"| `{route.path}` | {', '.join(methods)} | {access or '-'} | {event or '-'} | `{route.metric}` |"
            for (access, event), methods in rows.items()
        ]
    return "\n".join(lines) + "\n"
