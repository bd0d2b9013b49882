"""Reading CSAF 2.0 documents (OASIS), of the profiles ``csaf_vex`` and ``csaf_security_advisory``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from digestry.advisories.statements import (
    LONG_AGO,
    Document,
    Product,
    Statement,
    Status,
    UnreadableDocument,
    read_each,
)
from digestry.advisories.values import is_image_purl, read_revision, read_time, read_version
from digestry.errors import InvalidReference
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text
from digestry.model.reference import Reference

_STATUSES: Final[dict[str, Status]] = {
    "known_affected": "affected",
    "first_affected": "affected",
    "last_affected": "affected",
    "under_investigation": "under_investigation",
    "fixed": "fixed",
    "first_fixed": "fixed",
    "known_not_affected": "not_affected",
}
_SILENT: Final = frozenset({"recommended"})
_MOST_PRODUCTS: Final = 100_000
_DEEPEST: Final = 8
"""How deep relationships of relationships are followed."""
_IMAGE: Final = "https://"
"""Before an image that is known by the name of its product alone. A name that is not the image's says then
nothing about it, and not that it is another one: copies have other names."""
_WITH_DIGEST: Final = re.compile(
    r"([^\s@]+@(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}))(?:_[a-z0-9_]+)?", re.ASCII
)
"""Red Hat writes the architecture after it."""
_WITH_REGISTRY: Final = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+(?::[0-9]+)?/[^\s:@]+:[^\s:@/]+", re.ASCII)
_SUSE: Final = re.compile(r"Container ([^\s:@]+(?::[^\s:@/]+)?)", re.ASCII)


def is_csaf(value: JsonObject) -> bool:
    """Return whether a JSON object is a CSAF document."""
    document = as_object(value.get("document"))
    return "csaf_version" in document or as_text(document.get("category")).startswith("csaf")


def read_document(value: JsonObject) -> Document | UnreadableDocument:
    """Return a CSAF document, decoded from JSON."""
    document = as_object(value.get("document"))
    tracking = as_object(document.get("tracking"))
    when = as_text(tracking.get("current_release_date")) or as_text(tracking.get("initial_release_date"))
    try:
        timestamp = read_time(when)
    except ValueError:
        return UnreadableDocument(f"the time of its CSAF document is {shown(when)}")
    entries = value.get("vulnerabilities")
    if entries is not None and not isinstance(entries, list):
        return UnreadableDocument("the vulnerabilities of its CSAF document are not a list")
    publisher = as_object(document.get("publisher"))
    products = _products(as_object(value.get("product_tree")), as_text(publisher.get("namespace")))
    version = read_version(as_text(tracking.get("version")).partition(".")[0])
    author = as_text(publisher.get("name"))

    def read(entry: object) -> Iterator[Statement | UnreadableDocument]:
        vulnerability = as_object(entry)
        ids = [as_text(as_object(identifier).get("text")) for identifier in as_list(vulnerability.get("ids"))]
        names = [name for name in (as_text(vulnerability.get("cve")), *ids) if name]
        product_status = as_object(vulnerability.get("product_status"))
        unknown = sorted(product_status.keys() - _STATUSES.keys() - _SILENT)
        if not names or unknown or not product_status:
            yield UnreadableDocument(
                f"its status is {shown(unknown[0])}" if unknown else "it has no name, or no status"
            )
        for found in _statements(vulnerability, product_status, products) if names else ():
            yield replace(
                found,
                vulnerability=names[0],
                aliases=tuple(names[1:]),
                timestamp=timestamp,
                version=version,
                author=author,
            )

    statements, faults = read_each(as_list(entries), "vulnerability", read)
    return Document(
        kind="CSAF",
        predicate=value,
        version=version,
        author=author,
        identity=as_text(tracking.get("id")),
        revision=read_revision(as_text(tracking.get("version"))),
        updated=timestamp,
        statements=statements,
        faults=faults,
    )


def _statements(
    vulnerability: JsonObject, product_status: JsonObject, products: dict[str, Product]
) -> list[Statement]:
    """Return the statements about one vulnerability, without the fields that the whole document shares."""
    notes = [as_text(as_object(threat).get("details")) for threat in as_list(vulnerability.get("threats"))]
    return [
        Statement(
            vulnerability="",
            aliases=(),
            status=_STATUSES[word],
            timestamp=LONG_AGO,
            version=1,
            author="",
            # An ID that is not in the tree is a product without a name.
            products=tuple(products.get(as_text(product_id), Product()) for product_id in as_list(ids))
            or (Product(),),
            notes=next(filter(None, notes), ""),
            raw=vulnerability,
        )
        for word, ids in product_status.items()
        if word in _STATUSES
    ]


def _products(tree: JsonObject, publisher: str) -> dict[str, Product]:
    """Return the products by their IDs. A statement about a component of a product is about the product."""
    found: dict[str, Product] = {}
    pending = [*as_list(tree.get("branches")), *as_list(tree.get("full_product_names"))]
    while pending and len(found) < _MOST_PRODUCTS:
        branch = as_object(pending.pop())
        pending += as_list(branch.get("branches"))
        product = as_object(branch.get("product")) or branch
        if as_text(product.get("product_id")):
            found[as_text(product.get("product_id"))] = _product(product, publisher)
    relations = [as_object(one) for one in as_list(tree.get("relationships"))[:_MOST_PRODUCTS]]
    # One may be of a product that a later one makes.
    for _ in range(_DEEPEST):
        left = [relation for relation in relations if not _relate(relation, found)]
        if len(left) in {0, len(relations)}:
            break
        relations = left
    return found


def _relate(relation: JsonObject, found: dict[str, Product]) -> bool:
    """Add the product that a relationship makes; return whether both of its products are there."""
    identity = as_text(as_object(relation.get("full_product_name")).get("product_id"))
    whole = found.get(as_text(relation.get("relates_to_product_reference")))
    part = found.get(as_text(relation.get("product_reference")))
    if identity and whole is not None and part is not None:
        found[identity] = _related(part, whole)
        return True
    return False


def _related(part: Product, whole: Product) -> Product:
    """Return ``part`` as it is in ``whole``. An image that is part of a platform, as Red Hat's and SUSE's
    are, is the product itself."""
    if _is_image(part) and not _is_image(whole):
        return part
    return Product(whole.names, whole.hashes, (part.shown,), whole.inside)


def _is_image(product: Product) -> bool:
    return any(is_image_purl(name) or name.startswith(_IMAGE) for name in product.names)


def _product(product: JsonObject, publisher: str) -> Product:
    helper = as_object(product.get("product_identification_helper"))
    purls = [as_text(helper.get("purl")), *map(as_text, as_list(helper.get("purls")))]
    hashes = tuple(
        (as_text(as_object(file_hash).get("algorithm")), as_text(as_object(file_hash).get("value")))
        for group in as_list(helper.get("hashes"))
        for file_hash in as_list(as_object(group).get("file_hashes"))
    )
    name = as_text(product.get("name"))
    image = "" if any(purls) else _image_in(name, publisher)
    names = tuple(filter(None, [*purls, image, as_text(helper.get("cpe"))]))
    # A name is for people, and may be in any language: alone it identifies nothing else.
    return Product(names or (f"urn:csaf:{name}",), hashes)


def _image_in(name: str, publisher: str) -> str:
    """Return the image that a product's name says, as an address; empty if it says none.

    A digest after a name says it, and a registry with a repository and a tag. SUSE writes ``Container``
    before an image of its registry.
    """
    digest, whole, suse = _WITH_DIGEST.fullmatch(name), _WITH_REGISTRY.fullmatch(name), _SUSE.fullmatch(name)
    if digest is not None:
        image = digest[1]
    elif whole is not None:
        image = name
    elif suse is not None and _is_of_suse(publisher):
        image = f"registry.suse.com/{suse[1]}"
    else:
        return ""
    try:
        Reference.parse(image)
    except InvalidReference:
        return ""
    return f"{_IMAGE}{image}"


def _is_of_suse(publisher: str) -> bool:
    host = publisher.partition("://")[2].partition("/")[0].lower()
    return host == "suse.com" or host.endswith(".suse.com")
