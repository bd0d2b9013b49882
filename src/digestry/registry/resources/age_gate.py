"""The gate of minimum ages: which digest a tag is answered with, and which digests may be pulled at all.

Every request for a manifest or blob passes it, by whatever name it comes (docs/min-age.md).
"""

from __future__ import annotations

import functools
import logging
from typing import Final

import msgspec

from digestry.catalog import clock, signature_tags
from digestry.catalog.age_policy import AgePolicy
from digestry.catalog.tag_ages import DigestState, TagState
from digestry.errors import StorageError
from digestry.model import age_answers
from digestry.model.descriptor import encode_hook
from digestry.model.digest import Digest
from digestry.registry import observe_config
from digestry.registry.access.principal import Principal
from digestry.registry.age_cache import Told
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.exchange import Exchange
from digestry.registry.pull_through.mirror import UpstreamRepository
from digestry.registry.service import Service

HEADER: Final = age_answers.HEADER.lower().encode()
WARNING: Final = b"warning"
_REFUSED: Final = 403
_MOST_OBSERVED: Final = 50_000
_INTERVAL: Final = int(observe_config.USUAL * clock.SECOND)

log: Final = logging.getLogger("digestry.registry")
_LONGEST_WARNING: Final = 500


async def state_of(service: Service, name: str, tag: str, current: str, policy: AgePolicy) -> TagState | None:
    """Return what a tag, which points to ``current`` now, resolves to; None if it has no minimum age."""
    found = service.ages.tag(name, tag, current)
    if found is None:
        rule = policy.rule(name, tag)
        if not rule.age:
            return None
        now = service.now()
        found = await service.executors.run(service.stores.catalog.tag_ages.tag, name, tag, rule, now)
        service.ages.keep_tag(name, tag, current, found, now)
    return found


async def resolve_tag(service: Service, exchange: Exchange, name: str, tag: str, current: str) -> str:
    """Return the digest that a request for a tag is answered with, and note why in the answer's headers.

    Raises :class:`ErrorResponse` if no digest has stood for so long.
    """
    policy = service.config.ages
    if signature_tags.is_about(tag):
        if service.ages.gates(policy, name):
            await check_digest(service, exchange, name, current)  # it goes with what it is about
        return current
    state = await state_of(service, name, tag, current, policy)
    if state is None or _is_push(service, exchange, name):
        return current
    aged = state.aged
    chosen = aged.chosen
    text, headers = service.ages.told(name, tag, state, functools.partial(_told, name, tag, state))
    if chosen is None:
        if aged.refusal == "absent":
            return current  # it was made in this moment, and the next answer knows
        exchange.record_audit_event(action="refuse-young", tag=tag, digest=current, reason=text)
        raise refusal(
            text, aged_header=age_answers.header(aged), detail=_detail(name, tag, state, service.now())
        )
    if aged.newer or aged.let_through:
        origin = exchange.origin
        if service.ages.is_news(name, tag, chosen.digest, current, origin.actor, origin.address):
            what = "allow-young" if aged.let_through else "serve-aged"
            exchange.record_audit_event(
                action=what, tag=tag, digest=chosen.digest, newest=current, reason=text
            )
    exchange.extra_headers = [*exchange.extra_headers, *headers]
    return chosen.digest


def _told(name: str, tag: str, state: TagState) -> Told:
    aged = state.aged
    text = age_answers.explanation(name, tag, aged, basis=state.basis)
    headers = [(HEADER, age_answers.header(aged).encode("latin-1", "replace"))]
    if aged.chosen is not None and (aged.newer or aged.let_through):
        headers.append((WARNING, _warning(text)))
    return text, headers


async def check_digest(service: Service, exchange: Exchange, name: str, digest: str) -> None:
    """Raise :class:`ErrorResponse` if a manifest or blob may not be served by its digest.

    Who may push to a repository of this registry's own gets all that it has: a push asks for what is there,
    and who signs what they have pushed reads it with a token for pulling.
    """
    policy = service.config.ages
    if not service.ages.gates(policy, name):
        return
    mirrored = service.is_mirrored(name)
    if not mirrored and "push" in exchange.principal.ruled(name):
        return
    state = await digest_state(service, name, digest, policy, mirrored=mirrored)
    if state.allowed:
        return
    if state.why == "young" and state.aged is not None:
        least = age_answers.length(state.aged.least)
        held = "it" if _is_tagged(state, digest) else "what it belongs to"
        text = (
            f"{digest} is too young: {held} has not been under a tag for {least};"
            f" {age_answers.explanation(name, state.tag, state.aged, basis=state.basis)}"
        )
    elif state.why == "many":
        text = (
            f"{digest} has no known age: it is part of more images of {name} than are looked at, and none of"
            " those that are here for longest has been under a tag for long enough"
        )
    else:
        text = f"{digest} has no known age: no tag of {name} is known that it came with"
    exchange.record_audit_event(action="refuse-young", digest=digest, reason=text)
    raise refusal(text, detail={"digest": digest})


async def check_upstream(
    service: Service, exchange: Exchange, repository: UpstreamRepository, digest: Digest
) -> None:
    """Raise :class:`ErrorResponse` if what is here or upstream may not be served by its digest."""
    try:
        await check_digest(service, exchange, repository.local_name, str(digest))
    except ErrorResponse as error:
        raise for_push(exchange, repository, error) from error


def for_push(exchange: Exchange, repository: UpstreamRepository, refused: ErrorResponse) -> ErrorResponse:
    """Return the refusal of a request; for a push to a name that the default mirror has too, which asks
    whether something is there, the answer that it is not."""
    pushing = exchange.scope["method"] == "HEAD" and repository.by_default
    if refused.status != _REFUSED or not pushing:
        return refused
    if "push" not in exchange.principal.allowed(repository.requested_name):
        return refused
    code = "BLOB_UNKNOWN" if exchange.route.metric == "blob" else "MANIFEST_UNKNOWN"
    return ErrorResponse(404, code, refused.message, detail=refused.detail)


async def resolved(service: Service, name: str, tag: str, current: str) -> str:
    """Return the digest that a tag, which points to ``current``, is answered with; ``current`` if none is."""
    if signature_tags.is_about(tag):
        return current
    state = await state_of(service, name, tag, current, service.config.ages)
    return current if state is None or state.aged.chosen is None else state.aged.chosen.digest


async def ensure_observed(service: Service, repository: UpstreamRepository, tag: str) -> None:
    """Have a tag of a mirror observed that has a minimum age, and that a client asked for.

    Without observations it would never get an age.
    """
    name = repository.local_name
    known = service.ages.observed
    if (name, tag) in known or service.config.read_only or signature_tags.is_about(tag):
        return
    if not service.config.ages.rule(name, tag).age:
        return
    if len(known) >= _MOST_OBSERVED:
        known.clear()
    known.add((name, tag))
    upstream = f"{repository.mirror.config.host}/{repository.upstream_name}"
    plan = service.stores.catalog.observation_plan
    try:
        await service.executors.write(
            functools.partial(plan.include, upstream, tag, interval=_INTERVAL, now=service.now())
        )
    except StorageError as error:
        known.discard((name, tag))  # a pull does not fail for it, and the next one tries again
        log.warning("%s:%s is not observed: %s", name, tag, error.message)


async def digest_state(
    service: Service, name: str, digest: str, policy: AgePolicy, *, mirrored: bool
) -> DigestState:
    """Return whether a digest of a gated repository may be served, from memory for a while."""
    found = service.ages.digest(name, digest)
    if found is None:
        found = await service.executors.run(
            service.stores.catalog.tag_ages.digest, name, digest, policy, service.now(), mirrored=mirrored
        )
        service.ages.keep_digest(name, digest, found)
    return found


async def may_copy(service: Service, name: str, digest: Digest, principal: Principal) -> bool:
    """Return whether ``principal``, who may pull, may mount a digest of a repository elsewhere."""
    policy = service.config.ages
    if not service.ages.gates(policy, name):
        return True
    mirrored = service.is_mirrored(name)
    if not mirrored and "push" in principal.ruled(name):
        return True
    return (await digest_state(service, name, str(digest), policy, mirrored=mirrored)).allowed


def may_search(service: Service, principal: Principal, name: str) -> bool:
    """Return whether a mount that names no source may find something in a repository."""
    if not principal.may_pull(name):
        return False
    own = not service.is_mirrored(name) and "push" in principal.ruled(name)
    return own or not service.ages.gates(service.config.ages, name)


def refusal(text: str, *, aged_header: str = "", detail: object = None) -> ErrorResponse:
    """Return the response to a request for what is too young."""
    headers = {age_answers.HEADER: aged_header} if aged_header else {}
    return ErrorResponse(_REFUSED, "DENIED", text, detail=detail, headers=headers, reason="min-age")


def _is_tagged(state: DigestState, digest: str) -> bool:
    return state.aged is not None and any(one.digest == digest for one in state.aged.newer)


def _is_push(service: Service, exchange: Exchange, name: str) -> bool:
    """Return whether a HEAD of a tag is a push that asks whether it still has to set the tag.

    A push that were told of the aged digest, which it is about to push, would leave the tag where it is.
    """
    if exchange.scope["method"] != "HEAD" or service.is_mirrored(name):
        return False
    principal = exchange.principal
    if "push" not in principal.allowed(name):
        return False
    if principal.grants is not None:
        return True  # the token was asked for with the right to push
    # containerd asks so, with the one media type of what it pushes; who pulls accepts several.
    accepted = [part.strip() for part in (exchange.header(b"accept") or "").split(",")]
    return len(accepted) == 2 and accepted[1] == "*/*" and accepted[0].startswith("application/")


def _warning(text: str) -> bytes:
    """Return ``text`` as the value of a header that clients show (distribution-spec, "Warnings")."""
    cut = text if len(text) <= _LONGEST_WARNING else f"{text[: _LONGEST_WARNING - 1]}…"
    plain = cut.encode("ascii", "replace").decode().replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{plain}"'.encode()


def _detail(name: str, tag: str, state: TagState, now: int) -> object:
    found = age_answers.answer(
        name, tag, state.aged, current=state.record.current, basis=state.basis, now=now
    )
    return msgspec.to_builtins(found, enc_hook=encode_hook)
