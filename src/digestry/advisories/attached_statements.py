"""The statements of attached documents that are about an image, and the advisories that they are."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from digestry.advisories import products
from digestry.advisories.advisory import Advisory, AdvisoryReading, AttachedDocument
from digestry.advisories.attachment_queries import AttachmentQueries
from digestry.advisories.products import SubjectImage
from digestry.advisories.signatures import Signature
from digestry.advisories.statements import GOOD, Product, Statement, Status
from digestry.errors import DigestryError, Unreachable
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.platform import Platform
from digestry.model.reference import Reference
from digestry.model.text import number_of

_MOST_LOOKUPS: Final = 16  # of digests that products name and that are not known
_LARGEST_CONFIG: Final = 4 << 20
_AHEAD: Final = datetime.timedelta(days=1)


class StatementMatcher:
    """Adds to ``reading`` the statements of documents that are about an image of ``repository``, and count by
    the rules of trust for each of ``ruled_by``."""

    def __init__(
        self,
        queries: AttachmentQueries,
        repository: Reference,
        ruled_by: tuple[Reference, ...],
        reading: AdvisoryReading,
    ) -> None:
        self._queries = queries
        self._repository = repository
        self._ruled_by = ruled_by
        self._reading = reading
        self._looked_up = 0

    def add(self, attached: AttachedDocument, about: SubjectImage) -> None:
        """Add the statements of ``attached`` that are about ``about``, and note the ignored ones."""
        document, digest = attached.document, attached.referrer
        signature = self._queries.trust.verify(document, self._repository)
        attached = replace(attached, signature=signature)
        if signature.state == "invalid":
            self._reading.attached.append(attached)
            self._reading.note(f"the advisory {digest} does not count: {signature.reason}")
            return
        if document.vague:
            self._reading.miss(
                self._repository,
                f"which image the advisory {digest} is about cannot be determined from its subject",
            )
        named = document.subjects
        if named and not any(map(about.comparable, named)):
            self._reading.miss(
                self._repository,
                f"which image the advisory {digest} is about cannot be determined from its subject's digests",
            )
            return
        if named and not named & about.digests and not self._holds(named, about):
            self._reading.note(
                f"the advisory {digest} says that it is about another image: it was passed over"
            )
            return
        self._reading.attached.append(attached)
        for fault in document.faults:
            self._reading.miss(self._repository, f"in the advisory {digest}, {fault}: it could not be read")
        if signature.state == "not verified":
            self._reading.note(f"the advisory {digest} is signed; the signature was not verified")
        passed_over: list[str] = []
        for statement in self._counted(attached):
            if statement.status in GOOD and statement.timestamp > _now() + _AHEAD:
                self._reading.miss(
                    self._repository,
                    f"in the advisory {digest}, the statement about {statement.vulnerability} is dated in the"
                    f" future, {statement.timestamp:%Y-%m-%d}: it was not believed",
                )
                continue
            found = list(self._advisories(statement, attached, about, passed_over))
            self._reading.advisories += found
        if passed_over:
            names = ", ".join(list(dict.fromkeys(passed_over))[:3])
            self._reading.note(f"the advisory {digest} is also, or only, about another product ({names})")

    def _counted(self, attached: AttachedDocument) -> list[Statement]:
        """Return the statements of a document that its signer may make, and note the others."""
        signature, statements = attached.signature, attached.document.statements
        objections = {
            status: self._objection(signature, status)
            for status in dict.fromkeys(statement.status for statement in statements)
        }
        for status, objection in objections.items():
            if objection:
                count = number_of(sum(statement.status == status for statement in statements), "statement")
                self._reading.note(
                    f"the advisory {attached.referrer} ({signature.shown}) has {count} without effect:"
                    f" {objection}"
                )
        return [statement for statement in statements if not objections[statement.status]]

    def _objection(self, signature: Signature, status: Status) -> str:
        every = (self._queries.trust.objection(signature, status, where) for where in self._ruled_by)
        return next(filter(None, every), "")

    def _advisories(
        self, statement: Statement, attached: AttachedDocument, about: SubjectImage, passed_over: list[str]
    ) -> Iterator[Advisory]:
        for product in statement.products or (None,):
            match = "digest" if product is None else self._match(product, statement, about)
            if match == "other":
                assert product is not None  # noqa: S101 - what is attached is about this
                passed_over.append(product.shown)
                continue
            if match == "unclear":
                assert product is not None  # noqa: S101 - as above
                self._reading.miss(
                    self._repository,
                    f"the advisory {attached.referrer} says {statement.status.replace('_', ' ')} about"
                    f" {statement.vulnerability}, and it is not known whether that is about this image:"
                    f" its product is {product.shown}",
                )
                continue
            name = {"digest": "", "name": "the repository"}.get(match)
            for component in (product.components if product is not None else ()) or ("",):
                yield Advisory(
                    statement,
                    self._repository,
                    attached.subject,
                    attached.referrer,
                    statement.author,
                    attached.signature,
                    product.shown if name is None and product is not None else name or "",
                    component,
                    sure=match != "package",
                )

    def _match(self, product: Product, statement: Statement, about: SubjectImage) -> products.Match:
        verdict = products.match_product(product, about)
        if verdict.match == "other" and self._holds(verdict.others, about):
            return "digest"
        if verdict.match == "name" and verdict.tag and statement.status in GOOD:
            # Tags move: a good statement about a tag is about this image only if the tag points to it.
            try:
                target = self._queries.resolve(self._repository, verdict.tag)
            except DigestryError:
                target = None
            if target is None or target.digest not in about.digests:
                return "unclear"
        if verdict.match == "name" and verdict.architecture and statement.status in GOOD:
            # That the image for one processor is well says nothing about the one for another.
            return self._built_for(verdict.architecture, about)
        return verdict.match

    def _built_for(self, architecture: str, about: SubjectImage) -> products.Match:
        """Return ``name`` if the image is for ``architecture``, ``other`` if it is for another."""
        wanted = Platform(architecture, "linux").normalized().architecture
        for digest in sorted(about.digests):
            try:
                manifest = self._queries.manifest(self._repository, digest)
                if manifest is None or manifest.config is None:
                    continue
                raw = self._queries.blob(self._repository, manifest.config, limit=_LARGEST_CONFIG)
                config = ImageConfig.parse(raw, verified=manifest.config.digest)
            except Unreachable:
                raise
            except DigestryError:
                continue
            built = Platform(config.architecture, "linux").normalized().architecture
            return "unclear" if not built else "name" if built == wanted else "other"
        return "unclear"

    def _holds(self, digests: Iterable[Digest], about: SubjectImage) -> bool:
        """Return whether one of ``digests`` holds the image or has its config, which may not be known yet."""
        for digest in digests:
            if self._looked_up == _MOST_LOOKUPS:
                return False
            self._looked_up += 1
            try:
                manifest = self._queries.manifest(self._repository, digest)
            except Unreachable:
                raise
            except DigestryError:
                continue
            if manifest is None:
                continue
            inside = {child.digest for child in manifest.manifests}
            inside |= {manifest.config.digest} if manifest.config is not None else set()
            if inside & about.digests:
                return True
        return False


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
