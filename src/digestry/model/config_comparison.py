"""What differs between the configs of two images: settings, environment, labels and build steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from digestry.model.image_config import HistoryEntry, ImageConfig
from digestry.model.json_values import as_list, as_object, as_text

_APART: Final = frozenset({"Env", "Labels", "ExposedPorts", "Volumes"})
"""The settings that are collections: their items are compared one by one."""
_SECRET: Final = re.compile(
    r"PASSW|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|PRIVATE_?KEY|API_?KEY|ACCESS_?KEY|(?:^|_)(?:PWD|AUTH)(?:_|$)",
    re.IGNORECASE,
)


class SettingChange(msgspec.Struct, frozen=True):
    """A setting of the config with another value, as JSON has it; None if it is not set."""

    name: str
    old: object
    new: object


class TextChange(msgspec.Struct, frozen=True):
    """A variable, a label or an annotation with another value; None if it is not there."""

    name: str
    old: str | None
    new: str | None


class VariableChange(msgspec.Struct, frozen=True):
    """An environment variable with another value; None if it is not there.

    ``secret`` means that by its name the value may be a secret. It is not hidden: whoever may pull the image
    can read it there.
    """

    name: str
    old: str | None
    new: str | None
    secret: bool


class ItemChanges(msgspec.Struct, frozen=True):
    """The items of a set that only the old, or only the new image has."""

    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


class HistoryChanges(msgspec.Struct, frozen=True):
    """The build steps that only one of the images has, in their order.

    ``common`` is the number of the others: the first and the last steps. Steps are the same if their commands
    are, whenever they ran.
    """

    common: int = 0
    removed: tuple[HistoryEntry, ...] = ()
    added: tuple[HistoryEntry, ...] = ()


class ConfigChanges(msgspec.Struct, frozen=True):
    """What differs between two configs. Each field is in the order of its names."""

    settings: tuple[SettingChange, ...] = ()
    environment: tuple[VariableChange, ...] = ()
    labels: tuple[TextChange, ...] = ()
    exposed_ports: ItemChanges = ItemChanges()
    volumes: ItemChanges = ItemChanges()
    history: HistoryChanges = HistoryChanges()


def compare_configs(old: ImageConfig, new: ImageConfig) -> ConfigChanges:
    """Return what differs. A setting that is null, empty or false is the same as one that is not set."""
    return ConfigChanges(
        settings=tuple(_settings(old.settings, new.settings)),
        environment=tuple(
            VariableChange(change.name, change.old, change.new, looks_secret(change.name))
            for change in compare_texts(environment(old), environment(new))
        ),
        labels=compare_texts(_texts(old.settings.get("Labels")), _texts(new.settings.get("Labels"))),
        exposed_ports=_items(old.settings.get("ExposedPorts"), new.settings.get("ExposedPorts")),
        volumes=_items(old.settings.get("Volumes"), new.settings.get("Volumes")),
        history=compare_histories(old.history, new.history),
    )


def environment(config: ImageConfig) -> dict[str, str]:
    """Return the variables of the environment; of several with one name the last, as in a container."""
    pairs = (as_text(item).partition("=") for item in as_list(config.settings.get("Env")))
    return {name: value for name, _, value in pairs if name}


def looks_secret(name: str) -> bool:
    """Return whether a variable of this name may have a secret as its value."""
    return _SECRET.search(name) is not None


def compare_texts(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[TextChange, ...]:
    """Return the keys whose values differ, in their order."""
    return tuple(
        TextChange(name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    )


def compare_histories(old: Sequence[HistoryEntry], new: Sequence[HistoryEntry]) -> HistoryChanges:
    """Return the steps between those that both begin and end with."""
    before, after = [_step(entry) for entry in old], [_step(entry) for entry in new]
    shortest = min(len(before), len(after))
    first = next((n for n in range(shortest) if before[n] != after[n]), shortest)
    last = next((n for n in range(shortest - first) if before[-1 - n] != after[-1 - n]), shortest - first)
    return HistoryChanges(
        first + last, tuple(old[first : len(old) - last]), tuple(new[first : len(new) - last])
    )


def _step(entry: HistoryEntry) -> tuple[str, bool]:
    return entry.created_by or "", entry.empty_layer


def _settings(old: Mapping[str, object], new: Mapping[str, object]) -> list[SettingChange]:
    names = sorted((old.keys() | new.keys()) - _APART)
    changes = [SettingChange(name, old.get(name) or None, new.get(name) or None) for name in names]
    return [change for change in changes if change.old != change.new]


def _texts(value: object) -> dict[str, str]:
    return {key: as_text(text) for key, text in as_object(value).items()}


def _items(old: object, new: object) -> ItemChanges:
    before, after = as_object(old).keys(), as_object(new).keys()
    return ItemChanges(tuple(sorted(before - after)), tuple(sorted(after - before)))
