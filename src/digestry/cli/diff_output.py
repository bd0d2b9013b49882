"""The text of ``digestry diff``: a table of platforms, and one of what changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from digestry.cli.output import digest_cell, human_size, printable, say, table
from digestry.model.image_comparison import Comparison
from digestry.model.text import number_of

if TYPE_CHECKING:
    from digestry.model.config_comparison import ConfigChanges, TextChange, VariableChange
    from digestry.model.image_comparison import ImageChanges
    from digestry.model.layer_comparison import ComparedLayer, LayerChanges

_LONGEST: Final = 60
_Row = tuple[str, str, object, object]
"""The kind of a thing, its name, its old value and its new one; None if it is not there."""


class Document(Comparison, frozen=True):
    """The output of the command; the fields are the JSON's keys."""

    old_name: str
    new_name: str
    same: bool


def write(document: Document, *, whole: bool) -> None:
    """Print what changed; ``whole`` does not cut digests and values."""
    if document.same:
        say(printable(f"{document.old_name} and {document.new_name} are the same: {document.new}"))
        return
    _line("Old", f"{document.old_name} {document.old}")
    _line("New", f"{document.new_name} {document.new}")
    if len(document.platforms) > 1 or document.image is None:
        say()
        table(
            ["PLATFORM", "CHANGE", "OLD", "NEW"],
            [
                [
                    one.platform,
                    "same" if one.old == one.new else _change(one.old, one.new),
                    digest_cell(one.old, whole),
                    digest_cell(one.new, whole),
                ]
                for one in document.platforms
            ],
        )
    image = document.image
    rows: list[_Row] = [("annotation", one.name, one.old, one.new) for one in document.annotations]
    if image is not None:
        say()
        _summary(image)
        # The annotations of an image that is no part of an index are the ones above.
        inner = image.annotations if image.new.digest != document.new else ()
        rows += _rows_of(image, inner, whole=whole)
    if rows:
        say()
        _changes(rows, whole=whole)


def _line(label: str, value: str) -> None:
    say(f"{label + ':':<12} {printable(value)}")


def _summary(image: ImageChanges) -> None:
    _line("Platform", image.platform)
    _line("Created", f"{image.old.created_at or '-'} -> {image.new.created_at or '-'}")
    _line("Size", f"{human_size(image.old.size)} -> {human_size(image.new.size)}, {_layers(image.layers)}")
    _line("Base", image.base.described())


def _layers(layers: LayerChanges) -> str:
    parts = [f"{number_of(len(layers.shared), 'layer')} shared ({human_size(layers.shared_size)})"]
    if layers.removed:
        parts.append(f"{len(layers.removed)} only in the old ({human_size(layers.removed_size)})")
    if layers.added:
        parts.append(f"{len(layers.added)} only in the new ({human_size(layers.added_size)})")
    if layers.recompressed:
        parts.append(f"{len(layers.recompressed)} compressed anew")
    return ", ".join(parts) + (", in another order" if layers.reordered else "")


def _rows_of(image: ImageChanges, annotations: Sequence[TextChange], *, whole: bool) -> Iterator[_Row]:
    yield from (("image annotation", one.name, one.old, one.new) for one in annotations)
    if image.config is not None:
        yield from _config_rows(image.config)
    layers = image.layers
    yield from (("layer", digest_cell(one.digest, whole), _described(one), None) for one in layers.removed)
    yield from (("layer", digest_cell(one.digest, whole), None, _described(one)) for one in layers.added)
    yield from (
        ("layer, anew", digest_cell(one.new.diff_id, whole), _described(one.old), _described(one.new))
        for one in layers.recompressed
    )


def _config_rows(config: ConfigChanges) -> Iterator[_Row]:
    yield from (("setting", one.name, _text(one.old), _text(one.new)) for one in config.settings)
    yield from ((_kind(one), one.name, one.old, one.new) for one in config.environment)
    yield from (("label", one.name, one.old, one.new) for one in config.labels)
    for kind, items in (("port", config.exposed_ports), ("volume", config.volumes)):
        yield from ((kind, name, name, None) for name in items.removed)
        yield from ((kind, name, None, name) for name in items.added)
    yield from (("step", "", one.created_by or one.comment or "", None) for one in config.history.removed)
    yield from (("step", "", None, one.created_by or one.comment or "") for one in config.history.added)


def _kind(change: VariableChange) -> str:
    return "variable, secret?" if change.secret else "variable"


def _described(layer: ComparedLayer) -> str:
    size = human_size(layer.size)
    return f"{size} {layer.created_by}" if layer.created_by else size


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _change(old: object, new: object) -> str:
    if old is None:
        return "added"
    return "removed" if new is None else "changed"


def _changes(rows: Iterable[_Row], *, whole: bool) -> None:
    table(
        ["CHANGE", "WHAT", "NAME", "OLD", "NEW"],
        [
            [_change(old, new), kind, name or "-", _cell(old, whole=whole), _cell(new, whole=whole)]
            for kind, name, old, new in rows
        ],
    )


def _cell(value: object, *, whole: bool) -> str:
    if value is None:
        return "-"
    text = str(value)
    return text if whole or len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
