"""Modules of the standard library that are loaded at their first use, and not where they are imported.

click imports :mod:`inspect`, http.client :mod:`ssl`, email :mod:`random`: a short command uses none of them,
and would spend a fifth of its time on loading them (docs/adr/0036-modules-are-loaded-late.md).
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import typing
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

_LOCK: Final = "__late_lock__"
_LOADING: Final = "__late_loading__"


def _clean_line(text: str) -> str:
    """Return a docstring as :func:`inspect.cleandoc` does; without line breaks there is little to do."""
    if "\n" in text:
        import inspect

        _load(inspect)
        return inspect.cleandoc(text)
    return text.expandtabs().lstrip()


def _system() -> str:
    """Return the name of the operating system, as :func:`platform.system` does."""
    return os.uname().sysname


def _same(text: str) -> str:
    """Return a message of click's in English, as those of digestry are."""
    return text


def _same_number(one: str, several: str, number: int) -> str:
    """Return a message of click's for a number of things, in English."""
    return one if number == 1 else several


def _close_matches(word: str, known: Sequence[str], n: int = 3, cutoff: float = 0.6) -> list[str]:
    """Return words like ``word``, as :func:`difflib.get_close_matches` does.

    click asks for them for every short option, before it reads it as one.
    """
    if len(word) == len("-q"):
        return []
    import difflib

    _load(difflib)
    return difflib.get_close_matches(word, known, n, cutoff)


LATE: Final[dict[str, dict[str, object]]] = {
    "calendar": {},
    "difflib": {"get_close_matches": _close_matches},
    "gettext": {"gettext": _same, "ngettext": _same_number},
    "inspect": {"cleandoc": _clean_line},
    "ipaddress": {},
    "platform": {"system": _system},
    "random": {},
    "selectors": {},
    "ssl": {},
    "textwrap": {},
    # What msgspec takes of it where it is not installed.
    "typing_extensions": {
        name: getattr(typing, name) for name in ("get_type_hints", "NotRequired", "Required")
    },
}
"""The modules, and what they have before they are loaded, in place of their own."""


class LateModule(ModuleType):
    """A module that is loaded when something is asked of it that it does not have yet.

    It stays the same object: who imported it before has the loaded module afterwards.
    """

    def __init__(self, spec: ModuleSpec, known: dict[str, object]) -> None:
        super().__init__(spec.name)
        self.__spec__ = spec
        self.__loader__ = spec.loader
        self.__package__ = spec.parent
        self.__dict__.update({"__file__": spec.origin, "__cached__": spec.cached})
        self.__dict__.update(known)
        self.__dict__[_LOCK] = threading.RLock()

    def __getattr__(self, name: str) -> Any:  # Any: what a module has
        # `from module import name` asks whether it is a package, and takes what is known then.
        if name != "__path__":
            _load(self)
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None


def _load(module: ModuleType) -> None:
    """Load a module, unless it is loaded, or is being loaded by this thread."""
    state = module.__dict__
    lock = state.get(_LOCK)
    if lock is None:
        return
    with lock:
        if _LOCK not in state or _LOADING in state:
            return  # another thread has loaded it; or this one asks for what its own imports need
        state[_LOADING] = True
        spec = module.__spec__
        assert spec is not None  # noqa: S101 - it was made with one
        assert spec.loader is not None  # noqa: S101
        try:
            spec.loader.exec_module(module)
        finally:
            del state[_LOADING]
        del state[_LOCK]
        module.__class__ = ModuleType  # as any other from now on


def install() -> None:
    """Have the modules of :data:`LATE` loaded late in this process, unless they are loaded already."""
    for name, known in LATE.items():
        if name in sys.modules:
            continue
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            sys.modules[name] = LateModule(spec, known)
