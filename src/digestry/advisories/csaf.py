"""What CSAF 2.0 documents say of vulnerabilities (OASIS; profiles ``csaf_vex`` and
``csaf_security_advisory``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from digestry.advisories.statements import (
    LONG_AGO,
    Document,
    Product,
    Statement,
    Status,
    Unreadable,
    items,
    mapping,
    number,
    parse_time,
    read_each,
    text,
)
from digestry.model.digest import shown

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


def is_csaf(value: dict[str, Any]) -> bool:
    """Whether a JSON object is a CSAF document."""
    document = mapping(value.get("document"))
    return "csaf_version" in document or text(document.get("category")).startswith("csaf")


def read_document(value: dict[str, Any]) -> Document | Unreadable:
    """A CSAF document, decoded from JSON."""
    document = mapping(value.get("document"))
    tracking = mapping(document.get("tracking"))
    when = text(tracking.get("current_release_date")) or text(tracking.get("initial_release_date"))
    try:
        timestamp = parse_time(when)
    except ValueError:
        return Unreadable(f"the time of its CSAF document is {shown(when)}")
    entries = value.get("vulnerabilities")
    if entries is not None and not isinstance(entries, list):
        return Unreadable("the vulnerabilities of its CSAF document are not a list")
    products = _products(mapping(value.get("product_tree")))
    version = number(text(tracking.get("version")).partition(".")[0])
    author = text(mapping(document.get("publisher")).get("name"))

    def read(entry: object) -> Iterator[Statement | Unreadable]:
        vulnerability = mapping(entry)
        ids = [text(mapping(one).get("text")) for one in items(vulnerability.get("ids"))]
        names = [name for name in (text(vulnerability.get("cve")), *ids) if name]
        said = mapping(vulnerability.get("product_status"))
        unknown = sorted(said.keys() - _STATUSES.keys() - _SILENT)
        if not names or unknown or not said:
            yield Unreadable(
                f"its status is {shown(unknown[0])}" if unknown else "it has no name, or no status"
            )
        for one in _statements(vulnerability, said, products) if names else ():
            yield replace(
                one,
                vulnerability=names[0],
                aliases=tuple(names[1:]),
                timestamp=timestamp,
                version=version,
                author=author,
            )

    statements, faults = read_each(items(entries), "vulnerability", read)
    return Document(
        kind="CSAF",
        predicate=value,
        version=version,
        author=author,
        identity=text(tracking.get("id")),
        statements=statements,
        faults=faults,
    )


def _statements(
    vulnerability: dict[str, Any], said: dict[str, Any], products: dict[str, Product]
) -> list[Statement]:
    """What is said of one vulnerability, but for what it shares with the rest of the document."""
    notes = [text(mapping(one).get("details")) for one in items(vulnerability.get("threats"))]
    return [
        Statement(
            vulnerability="",
            aliases=(),
            status=_STATUSES[word],
            timestamp=LONG_AGO,
            version=1,
            author="",
            # An ID that the tree does not have is a product that nobody can read.
            products=tuple(products.get(text(one), Product()) for one in items(ids)) or (Product(),),
            notes=next(filter(None, notes), ""),
            raw=vulnerability,
        )
        for word, ids in said.items()
        if word in _STATUSES
    ]


def _products(tree: dict[str, Any]) -> dict[str, Product]:
    """The products by their IDs. What is said of a component of a product is about the product."""
    found: dict[str, Product] = {}
    pending = [*items(tree.get("branches")), *items(tree.get("full_product_names"))]
    while pending and len(found) < _MOST_PRODUCTS:
        branch = mapping(pending.pop())
        pending += items(branch.get("branches"))
        product = mapping(branch.get("product")) or branch
        if text(product.get("product_id")):
            found[text(product.get("product_id"))] = _product(product)
    for one in items(tree.get("relationships"))[:_MOST_PRODUCTS]:
        relation = mapping(one)
        identity = text(mapping(relation.get("full_product_name")).get("product_id"))
        whole = found.get(text(relation.get("relates_to_product_reference")))
        part = found.get(text(relation.get("product_reference")))
        if identity and whole is not None and part is not None:
            found[identity] = Product(whole.names, whole.hashes, (part.shown,), whole.inside)
    return found


def _product(product: dict[str, Any]) -> Product:
    helper = mapping(product.get("product_identification_helper"))
    names = [text(helper.get("purl")), *map(text, items(helper.get("purls"))), text(helper.get("cpe"))]
    hashes = tuple(
        (text(mapping(one).get("algorithm")), text(mapping(one).get("value")))
        for group in items(helper.get("hashes"))
        for one in items(mapping(group).get("file_hashes"))
    )
    # A name is for people, and may be in any language: alone it tells nothing.
    return Product(tuple(filter(None, names)) or (f"urn:csaf:{text(product.get('name'))}",), hashes)
