"""An inventory in CSV: a line of headings, and then a line a container."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from typing import Final

from digestry.errors import DigestryError
from digestry.inventory.formats.columns import Plan, plan
from digestry.inventory.formats.digest_columns import holds_digest
from digestry.inventory.formats.image_listings import image_marks, no_container
from digestry.inventory.formats.inventory import KEYS, Inventory
from digestry.inventory.formats.json_documents import Input
from digestry.inventory.formats.rows import DeferredImage, Item, Reading, Row, RowImage
from digestry.model.digest import shown
from digestry.model.text import number_of

_SEPARATORS: Final = ",\t;|"
_RULE: Final = re.compile(r"^ *:?-{3,}:? *$")
_EXCELS: Final = re.compile(r"sep=.\s*", re.IGNORECASE)
"""What Excel writes before the headings, or needs to be told."""


def read_csv(source: Input, first: str, inventory: Inventory, reading: Reading) -> Iterator[Item]:
    """Yield the containers of an inventory whose line of headings is ``first``, read one line at a time.

    Cells are separated by commas, tabs, semicolons or bars. Raises ``UnicodeDecodeError``, of the line that
    is ``source.number``, and the errors of reading.
    """
    if _EXCELS.fullmatch(first):
        first = source.line().decode()
    line = source.number
    separator = max(_SEPARATORS, key=first.count)
    try:
        headings = [cell.strip() for cell in next(csv.reader([first], strict=True, delimiter=separator))]
    except csv.Error as error:
        yield reading.problem_on(line, f"neither JSON nor CSV: {error}")
        return
    by = plan(headings)
    if not by.identifies:
        yield reading.problem_on(
            line,
            f"the headings have none of reference, digest, image_id: {', '.join(map(shown, headings))}",
            f"the first line names the columns: {', '.join(KEYS)}",
        )
        return
    if marks := image_marks(headings):
        refusal = no_container(marks)
        yield reading.problem_on(line, refusal.message, refusal.hint)
        return
    yield from inventory.not_read((heading for heading in headings if heading in by.suspect), f"line {line}")
    yield reading.note(_read_as(headings, by))
    yield from _Table(headings, by, inventory, reading).rows(source, separator)


def _read_as(headings: Sequence[str], by: Plan) -> str:
    """Return which columns are read, and which are not."""
    read = [heading for heading in headings if heading in by.read]
    others = [shown(heading) for heading in headings if heading not in by.read]
    note = f"read as an inventory in CSV: {', '.join(read)}"
    return f"{note}; not read: {', '.join(others)}" if others else note


class _Table:
    """The lines below the headings. A container like one before it has that one's image."""

    def __init__(self, headings: Sequence[str], by: Plan, inventory: Inventory, reading: Reading) -> None:
        self._headings = headings
        self._plan = by
        self._inventory = inventory
        self._reading = reading
        self._others = [at for at, heading in enumerate(headings) if heading not in by.read]
        self._of_container = by.of_container
        self._of_image = by.of_image
        self._images: dict[tuple[str, ...], RowImage | DeferredImage] = {}

    def rows(self, source: Input, separator: str) -> Iterator[Item]:
        """Yield the containers of the remaining lines in ``source``, and the problems."""
        begun = source.number
        lines = csv.reader(_decoded(source), strict=True, delimiter=separator)
        while True:
            line = source.number + 1
            try:
                cells = next(lines, None)
            except csv.Error as error:
                # The text after a broken quote cannot be distinguished from the text inside it.
                yield self._reading.problem_on(line, f"not CSV: {error}; nothing from here on was read")
                return
            if cells is None:
                break
            if len(cells) != len(self._headings):
                if any(cell.strip() for cell in cells):
                    yield self._reading.problem_on(
                        line,
                        f"{number_of(len(cells), 'field')} where the headings have {len(self._headings)}",
                    )
                continue
            if not any(_RULE.sub("", cell) for cell in cells):
                continue  # the line below the headings of Markdown's tables
            for at in self._others:
                if holds_digest(self._headings[at], cells[at]):
                    yield from self._inventory.not_read((self._headings[at],), f"line {line}")
            cells = [cell.strip() for cell in cells]
            row = self._like_one_before(cells)
            if row is not None:
                yield row
            else:
                yield from self._new(cells, line)
        if source.number <= begun + 1:
            yield self._reading.problem("no line follows the headings, which does not show that nothing runs")

    def _like_one_before(self, cells: list[str]) -> Row | None:
        """Return the container that ``cells`` describe, or None if its image has not been read yet."""
        image = self._images.get(self._key(cells))
        if image is None or self._of_container is None:
            return None
        cells = [*cells, ""]  # for the columns that are not there
        host, namespace, name, identity = [cells[at] for at in self._of_container]
        text = self._reading.text
        return Row(text(host), text(namespace), name, identity, image)

    def _new(self, cells: list[str], line: int) -> Iterator[Item]:
        try:
            for row in self._inventory.row(self._plan.values(cells)):
                self._images[self._key(cells)] = row.image
                yield row
        except DigestryError as error:
            if any(cells):
                yield self._reading.problem_on(line, error.message, error.hint)

    def _key(self, cells: list[str]) -> tuple[str, ...]:
        return tuple([cells[at] for at in self._of_image])


def _decoded(source: Input) -> Iterator[str]:
    while line := source.line():
        yield line.decode()
