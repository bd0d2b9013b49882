"""The tree of files that an image's layers make together, and which entries of the layers are in it.

Only names are kept; the layers' bytes are not. A symlink on the way to an entry is followed inside the tree,
as after a chroot (image-spec, layer.md, for the whiteouts).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from digestry.errors import ContentError, TooLarge
from digestry.images import tar_reader
from digestry.images.tar_reader import TarEntry
from digestry.model.digest import shown

Position = tuple[int, int]
"""An entry: the number of its layer, and its own in that layer."""

DEEPEST: Final = 2048
_MOST_LINKS: Final = 40
_MOST_STEPS: Final = 1 << 26
_MOST_NODES: Final = 2_000_000
_MOST_NAME_BYTES: Final = 256 << 20
_WHITEOUT: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"
_WITHOUT_CONTENT: Final = frozenset({b"3", b"4", b"6"})  # devices and FIFOs


@dataclass(slots=True)
class _File:
    """The file of several hard links: the entry with the content, and its names."""

    origin: Position
    names: list[_Node] = field(default_factory=list)


@dataclass(slots=True)
class _Node:
    """A name in the tree. A directory has ``children``, a symlink a ``link``, a file a ``file``.

    ``positions`` are the entries that it comes from, and ``layer`` the last layer that touched it.
    """

    layer: int
    positions: list[Position]
    children: dict[bytes, _Node] | None = None
    link: bytes | None = None
    file: _File | None = None
    name: bytes = b""
    target: Position | None = None


@dataclass(slots=True)
class Survivors:
    """The entries that are in the tree at the end.

    ``whole`` go out as they are. ``renamed`` have content whose own name is gone: they go out under the name
    of a hard link. ``relinked`` are hard links to a name that is gone: they link to the one here.
    """

    whole: set[Position] = field(default_factory=set)
    renamed: dict[Position, bytes] = field(default_factory=dict)
    relinked: dict[Position, bytes] = field(default_factory=dict)


class MergedTree:
    """A tree to which layers are added, the lowest first. Raises :class:`ContentError`, :class:`TooLarge`."""

    def __init__(self) -> None:
        self._root = _Node(0, [], {})
        self._steps = self._nodes = self._name_bytes = 0

    def add(self, entry: TarEntry, position: Position) -> None:
        """Apply an entry of a layer."""
        self._name_bytes += len(entry.name)
        if self._name_bytes > _MOST_NAME_BYTES:
            raise TooLarge(
                f"the image's names have more than {_MOST_NAME_BYTES} bytes", limit=_MOST_NAME_BYTES
            )
        layer = position[0]
        parts = _parts(entry.name)
        if not parts:
            if entry.kind == tar_reader.DIRECTORY:
                self._root.positions.append(position)
            return
        parent = self._directory(parts[:-1], layer)
        name = parts[-1]
        if name == _OPAQUE:
            self._hide(parent, layer)
        elif name.startswith(_WHITEOUT):
            hidden = name.removeprefix(_WHITEOUT)
            if hidden in {b"", b".", b".."}:
                raise ContentError(f"the archive has a whiteout of {shown(hidden)}")
            self._hide_entry(parent, hidden, layer)
        else:
            self._place(parent, name, entry, position)

    def _place(self, parent: _Node, name: bytes, entry: TarEntry, position: Position) -> None:
        layer = position[0]
        assert parent.children is not None  # noqa: S101 - it is a directory
        if entry.kind == tar_reader.DIRECTORY:
            there = parent.children.get(name)
            if there is None or there.children is None:
                there = parent.children[name] = self._node(layer, children={})
            there.positions.append(position)
            there.layer = layer
            return
        node = self._node(layer, position)
        node.name = entry.name
        if entry.kind == tar_reader.HARD_LINK:
            target = self._find(entry.link)
            if target is None or target.children is not None:
                raise ContentError(
                    f"{shown(entry.name)} is a link to {shown(entry.link)}, which is not a file"
                )
            node.link, node.file, node.target = target.link, target.file, target.positions[0]
        elif entry.kind == tar_reader.SYMLINK:
            node.link, node.file = entry.link, _File(position)
        elif entry.kind in tar_reader.REGULAR or entry.kind in _WITHOUT_CONTENT:
            node.file = _File(position)
        else:
            raise ContentError(
                f"{shown(entry.name)} is of the kind {shown(entry.kind)}, which is not supported"
            )
        parent.children[name] = node

    def _node(
        self, layer: int, position: Position | None = None, children: dict[bytes, _Node] | None = None
    ) -> _Node:
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            raise TooLarge(f"the image has more than {_MOST_NODES} files", limit=_MOST_NODES)
        return _Node(layer, [] if position is None else [position], children)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise TooLarge("the image's paths take too many steps to follow", limit=_MOST_STEPS)

    def _directory(self, parts: list[bytes], layer: int) -> _Node:
        """Return the directory of a path; missing parts are made."""
        found = self._walk(parts, layer)
        if found is None or found.children is None:
            raise ContentError(f"{shown(b'/'.join(parts))} cannot be a directory: a file is in its place")
        return found

    def _find(self, name: bytes) -> _Node | None:
        parts = _parts(name)
        parent = self._walk(parts[:-1], None) if parts else None
        return None if parent is None or parent.children is None else parent.children.get(parts[-1])

    def _walk(self, parts: list[bytes], layer: int | None) -> _Node | None:
        """Return the target of a path, symlinks followed; with ``layer``, make missing directories."""
        node, above = self._root, list[_Node]()
        left = parts[::-1]
        links = 0
        while left:
            self._step()
            part = left.pop()
            if part == b"..":
                node = above.pop() if above else self._root
                continue
            if node.children is None:
                return None
            child = node.children.get(part)
            if child is None:
                if layer is None:
                    return None
                child = node.children[part] = self._node(layer, children={})
            elif child.link is not None:
                links += 1
                if links > _MOST_LINKS:
                    raise ContentError(f"{shown(b'/'.join(parts))} leads through too many symlinks")
                if child.link.startswith(b"/"):
                    node, above = self._root, []
                left += [step for step in child.link.split(b"/") if step not in {b"", b"."}][::-1]
                continue
            if layer is not None:
                child.layer = layer
            above.append(node)
            node = child
            if len(above) > DEEPEST:
                raise ContentError(f"the archive has a path of more than {DEEPEST} directories")
        return node

    def _hide(self, directory: _Node, layer: int) -> None:
        """Remove the entries of lower layers in a directory."""
        waiting = [directory]
        while waiting:
            node = waiting.pop()
            for name, child in list((node.children or {}).items()):
                self._step()
                assert node.children is not None  # noqa: S101 - it has that child
                if child.layer != layer:
                    del node.children[name]
                elif child.children is not None:
                    waiting.append(child)

    def _hide_entry(self, parent: _Node, name: bytes, layer: int) -> None:
        """Remove the entry of lower layers under a name."""
        assert parent.children is not None  # noqa: S101 - it is a directory
        child = parent.children.get(name)
        if child is None:
            return
        if child.layer != layer:
            del parent.children[name]
        elif child.children is not None:
            self._hide(child, layer)

    def survivors(self) -> Survivors:
        """Return the entries that are in the tree now."""
        found = Survivors(set(self._root.positions))
        files: dict[int, _File] = {}
        for node in self._all():
            if node.file is None:
                found.whole.update(node.positions)
            else:
                node.file.names.append(node)
                files[id(node.file)] = node.file
        for file in files.values():
            _settle(file, found)
        return found

    def _all(self) -> Iterator[_Node]:
        waiting = [self._root]
        while waiting:
            node = waiting.pop()
            if node is not self._root:
                yield node
            waiting += (node.children or {}).values()


def _settle(file: _File, found: Survivors) -> None:
    """Add the remaining names of a file to ``found``."""
    names = sorted(file.names, key=lambda node: node.positions[0])
    there = {node.positions[0] for node in names}
    first = names[0]
    if file.origin in there:
        found.whole.add(file.origin)
    else:
        found.renamed[file.origin] = first.name
    for node in names:
        position = node.positions[0]
        if position == file.origin or (node is first and file.origin not in there):
            continue
        if node.target in there:
            found.whole.add(position)
        else:
            found.relinked[position] = first.name


def _parts(name: bytes) -> list[bytes]:
    parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
    if b".." in parts or b"\0" in name:
        raise ContentError(f"the archive has the path {shown(name)}, which leads out of the image")
    return parts
