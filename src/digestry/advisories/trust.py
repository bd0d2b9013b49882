"""The policy of trust: whose signatures are verified, and who may state what about which repositories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from digestry.advisories.signatures import NOT_VERIFIED, UNSIGNED, Signature
from digestry.advisories.statements import Document, Status
from digestry.model import media_types
from digestry.model.reference import Reference

_WILDCARD: Final = "*."


class VerifyingKey(Protocol):
    """A public key."""

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Return whether ``signature`` is this key's, of ``message``."""
        ...


@dataclass(frozen=True, slots=True)
class TrustedSigner:
    """Somebody with one or more keys, who is trusted in ``repositories``; in all of them if none is named."""

    name: str
    keys: tuple[VerifyingKey, ...]
    repositories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrustRule:
    """Who may state ``statuses`` about images of ``repositories``; without any, the rule is for all.

    ``signers`` are who may; None is any trusted signer, and also, unless ``require_signature``, everybody.
    """

    repositories: tuple[str, ...] = ()
    statuses: tuple[Status, ...] = ()
    signers: tuple[str, ...] | None = None
    require_signature: bool = True


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """The trusted signers, and the rules, of which the first that fits a statement decides.

    ``require_signature`` decides where no rule does.
    """

    signers: tuple[TrustedSigner, ...] = ()
    rules: tuple[TrustRule, ...] = ()
    require_signature: bool = False

    def verify(self, document: Document, repository: Reference) -> Signature:
        """Return the outcome of verifying the signatures of a document in ``repository``."""
        if not document.enveloped:
            return UNSIGNED
        if not self._trusted(repository):
            return NOT_VERIFIED
        envelope = document.envelope
        if envelope is None:
            return _invalid("its signatures are not of what it states")
        if envelope.payload_type != media_types.IN_TOTO:
            return _invalid("its envelope is not of an in-toto statement")
        if not document.subjects:
            # Somebody could attach it to any image.
            return _invalid("what is signed names no digest")
        if not envelope.signatures:
            return _invalid("its envelope has no signature")
        return self.identify(envelope.message, envelope.signatures, repository)

    def identify(self, message: bytes, signatures: Sequence[bytes], repository: Reference) -> Signature:
        """Return which signer that is trusted in ``repository`` has made one of the ``signatures``."""
        for signer in self._trusted(repository):
            for key in signer.keys:
                if any(key.verifies(signature, message) for signature in signatures):
                    return Signature("verified", signer.name)
        return _invalid("no trusted key has made its signature")

    def _trusted(self, repository: Reference) -> list[TrustedSigner]:
        return [one for one in self.signers if _fits(one.repositories, repository)]

    def objection(self, signature: Signature, status: Status, repository: Reference) -> str:
        """Return why a statement that ``status`` holds does not count in ``repository``; empty if it does."""
        if signature.state == "invalid":
            return signature.reason
        rule = self._rule(status, repository)
        verified = signature.state == "verified"
        if rule.signers is not None:
            if verified and signature.signer in rule.signers:
                return ""
            may = " or ".join(rule.signers) or "nobody"
            return f"only {may} may state {status.replace('_', ' ')} of {repository.name}"
        if verified or not rule.require_signature:
            return ""
        return f"{status.replace('_', ' ')} of {repository.name} needs the signature of a trusted key"

    def who_may(self, status: Status, repository: Reference) -> str:
        """Return who may state ``status`` about images of ``repository``, in words."""
        rule = self._rule(status, repository)
        if not rule.require_signature:
            return "anybody"
        trusted = [signer.name for signer in self._trusted(repository)]
        names = [name for name in (trusted if rule.signers is None else rule.signers) if name in trusted]
        return f"signed by {' or '.join(names)}" if names else "nobody"

    def _rule(self, status: Status, repository: Reference) -> TrustRule:
        """Return the rule that decides: the first that fits, or else one for everything."""
        fitting = (rule for rule in self.rules if _decides(rule, status, repository))
        return next(fitting, TrustRule(require_signature=self.require_signature))


TRUST_EVERYBODY: Final = TrustPolicy()
"""No signature is verified, and every statement counts."""


def _invalid(reason: str) -> Signature:
    return Signature("invalid", reason=reason)


def _decides(rule: TrustRule, status: Status, repository: Reference) -> bool:
    return status in (rule.statuses or (status,)) and _fits(rule.repositories, repository)


def _fits(patterns: Sequence[str], repository: Reference) -> bool:
    """Return whether one of ``patterns`` is the beginning of the repository's name; True for none.

    A pattern is ``HOST[:PORT]``, a longer part of a name, ``*.DOMAIN``, or ``/REPOSITORY`` of any host.
    """
    for pattern in patterns:
        name = f"/{repository.repository}" if pattern.startswith("/") else repository.name
        if pattern.startswith(_WILDCARD):
            if repository.host.partition(":")[0].endswith(pattern[1:]):
                return True
        elif name.startswith(pattern) and name[len(pattern) :][:1] in {"", "/", ":"}:
            return True
    return not patterns
