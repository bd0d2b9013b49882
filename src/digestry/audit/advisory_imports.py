"""The plan of an import: what files say about which images, and what of it is to be stated anew."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from digestry.advisories import importing
from digestry.advisories.attachments import read_advisories
from digestry.advisories.products import identify_product
from digestry.advisories.publish import NewStatement, TargetImage
from digestry.advisories.statements import Document, Product, Statement
from digestry.audit.graph_explorer import GraphExplorer
from digestry.audit.image_graph import ImageGraph
from digestry.audit.named_images import ImageFinder, NamedImages
from digestry.audit.registry_queries import RegistryQueries
from digestry.model.reference import Reference


@dataclass(frozen=True, slots=True)
class ImportFile:
    """A file's name, and a document in it."""

    name: str
    document: Document


@dataclass(slots=True)
class ImagePlan:
    """What is to be stated about one image: ``new`` statements; how many are ``stated`` already, and how many
    are ``assessed``, by somebody who stated that the image does not have the vulnerability."""

    image: Reference
    new: list[NewStatement] = field(default_factory=list)
    stated: int = 0
    assessed: int = 0


@dataclass(frozen=True, slots=True)
class Unmatched:
    """Statements of a file about a product that no image is known for: their number, and the reason."""

    file: str
    product: str
    statements: int
    reason: str


@dataclass(slots=True)
class ImportPlan:
    """The plan: images in their order, what matched nothing, and how many statements are less severe."""

    images: list[ImagePlan] = field(default_factory=list)
    unmatched: list[Unmatched] = field(default_factory=list)
    less_severe: int = 0

    @property
    def matched(self) -> bool:
        """Whether anything is about an image."""
        return bool(self.images)


class ImportPlanner:
    """Plans an import. Without ``only``, images are found by the names in the files; with it, everything that
    the files say is about that image, unless they say that it is about another."""

    def __init__(
        self, queries: RegistryQueries, finder: ImageFinder, only: TargetImage | None = None
    ) -> None:
        self._queries = queries
        self._finder = finder
        self._only = only
        self._graph = _graph_of(queries, only) if only is not None else None

    def plan(
        self, files: Sequence[ImportFile], *, severity: str, author: str, now: datetime.datetime
    ) -> ImportPlan:
        """Return what is to be stated. Statements less severe than ``severity`` are left out, and ``author``
        replaces the documents' own unless it is empty. Raises the errors of the queries."""
        plan = ImportPlan()
        by_image: dict[Reference, list[tuple[NewStatement, bool]]] = {}
        unmatched: dict[tuple[str, str, str], int] = {}
        for file in files:
            lone = _is_about_one_product(file.document)
            for statement in file.document.statements:
                if not importing.is_at_least(statement, severity):
                    plan.less_severe += 1
                    continue
                for product in statement.products or (Product(),):
                    image, components = importing.image_and_components(product, file.document)
                    found = self._images(image, file.document, lone=lone)
                    if not found.images:
                        key = file.name, image.shown if image != Product() else "", found.reason
                        unmatched[key] = unmatched.get(key, 0) + 1
                    new = _new(file.document, statement, components, author, now)
                    for one in found.images:
                        is_report = file.document.kind in importing.REPORTS
                        by_image.setdefault(one, []).append((new, is_report))
        plan.unmatched = [Unmatched(*key[:2], count, key[2]) for key, count in unmatched.items()]
        plan.images = [self._image_plan(image, by_image[image]) for image in sorted(by_image, key=str)]
        return plan

    def _images(self, product: Product, document: Document, *, lone: bool) -> NamedImages:
        if self._only is None or self._graph is None:
            if not product.names and not product.hashes:
                linked = document.kind == "CycloneDX" and importing.refers_to_others(document)
                also = (
                    ", or the bill of materials that it refers to, if it is imported with it"
                    if linked
                    else ""
                )
                return NamedImages(reason=f"it does not say which image it is about: --for IMAGE does{also}")
            return self._finder.find(product)
        only, digest = self._only.image, self._only.digest
        identity = identify_product(product)
        if identity.digests:
            graph = self._graph
            around = graph.closure(graph.config_of(digest)) | {digest}
            inside = [one for one in identity.digests if one in around or digest in graph.closure(one)]
            if not inside:
                return NamedImages(reason=f"it is about another image than {only}")
            # One image of an index, by its config: what is said is about that one.
            chosen = [one for one, node in graph.nodes.items() if node.config in inside]
            return NamedImages(tuple(only.with_digest(one) for one in chosen or [digest]))
        named = [image for image in identity.images if image.tag is not None]
        mine = only.repository_only()
        if named and not lone and all(image.repository_only() != mine for image in named):
            return NamedImages(reason=f"it is about another image than {only}")
        if any(image.repository_only() == mine for image in identity.images):
            return NamedImages((only,))
        if not named and (product.names or product.hashes) and not lone:
            return NamedImages(reason=f"nothing says that this product is {only}")
        return NamedImages((only,))

    def _image_plan(self, image: Reference, statements: Iterable[tuple[NewStatement, bool]]) -> ImagePlan:
        plan = ImagePlan(image)
        assert image.digest is not None  # noqa: S101 - for the type checker
        reading = read_advisories(self._queries, image.repository_only(), [image.digest])
        known = importing.KnownStatements(reading.current())
        every = list(statements)
        reported = importing.merged(one for one, is_report in every if is_report)
        others = importing.merged(one for one, is_report in every if not is_report)
        for group, is_report in ((others, False), (reported, True)):
            for new in group:
                if known.have(new):
                    plan.stated += 1
                elif is_report and known.clear(new):
                    plan.assessed += 1
                else:
                    plan.new.append(new)
        return plan


def _graph_of(queries: RegistryQueries, only: TargetImage) -> ImageGraph:
    explorer = GraphExplorer.of(queries, only.image.repository_only())
    explorer.expand(only.digest, None)
    return explorer.graph


def _is_about_one_product(document: Document) -> bool:
    products = {
        (product.names, product.hashes) for statement in document.statements for product in statement.products
    }
    return len(products) <= 1


def _new(
    document: Document,
    statement: Statement,
    components: Sequence[str],
    author: str,
    now: datetime.datetime,
) -> NewStatement:
    said = author or statement.author or document.author or "an author who is not named"
    return importing.as_new_statement(statement, components, author=said, now=now)
