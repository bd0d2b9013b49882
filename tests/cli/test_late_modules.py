"""Modules that are loaded at their first use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from digestry.cli.late_modules import LATE

_WAITS = "type(module).__name__ == 'LateModule'"


def ran(script: str, **environment: str) -> str:
    """What a new process prints, in which the modules are late."""
    prepared = f"import sys\nfrom digestry.cli import late_modules\nlate_modules.install()\n{script}"
    done = subprocess.run(
        [sys.executable, "-c", prepared],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return done.stdout.strip()


def test_none_is_loaded_before_it_is_used() -> None:
    waiting = ran(f"print(*(name for name, module in sys.modules.items() if {_WAITS}))")
    assert set(waiting.split()) == set(LATE)


@pytest.mark.parametrize("name", LATE)
def test_once_loaded_it_is_the_module_itself(name: str) -> None:
    script = f"""
import {name} as before
from importlib import import_module
assert type(before).__name__ == "LateModule"
path = before.__file__
try:
    before.nothing_of_that_name
except AttributeError as error:
    print(error)
import sys
assert sys.modules[before.__name__] is before is import_module(before.__name__)
assert type(before) is type(sys), type(before)
assert before.__spec__.name == before.__name__
assert before.__file__ == path
assert not [word for word in before.__dict__ if word.startswith("__late")]
print(len(before.__dict__))
"""
    late = ran(script)
    message, size = late.splitlines()
    assert "nothing_of_that_name" in message
    plain = subprocess.run(
        [sys.executable, "-c", f"import {name} as module; print(len(module.__dict__))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert size == plain.stdout.strip()


def test_what_is_known_before_is_what_the_module_says() -> None:
    script = """
import inspect, json, platform
texts = ["", "one", "  one ", "\\t a\\tb", "first\\n\\n    second\\n  third\\n\\n", "\\n\\n a\\n"]
early = [inspect.cleandoc(text) for text in texts], platform.system()
inspect.signature, platform.machine
import gettext
assert [gettext.gettext("x"), gettext.ngettext("a", "b", 1), gettext.ngettext("a", "b", 2)] == ["x", "a", "b"]
import difflib
known = ["--quiet", "--platform", "--help"]
early_words = [difflib.get_close_matches(word, known) for word in ("-q", "-x", "--quite")]
assert type(difflib) is type(sys)
assert early_words == [difflib.get_close_matches(word, known) for word in ("-q", "-x", "--quite")]
assert early == ([inspect.cleandoc(text) for text in texts], platform.system())
assert type(inspect) is type(platform) is type(sys)
from typing_extensions import NotRequired, Required
import typing
assert (NotRequired, Required) == (typing.NotRequired, typing.Required)
print(json.dumps(early))
"""
    texts, system = json.loads(ran(script))
    assert texts[1:3] == ["one", "one "]
    assert system == os.uname().sysname


def test_one_module_is_loaded_once_by_many_threads() -> None:
    script = """
import random, threading
barrier = threading.Barrier(8)
found = []
def use():
    barrier.wait()
    found.append(random.Random)
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(found), len(set(found)))
"""
    assert ran(script) == "8 1"


def test_a_module_that_is_loaded_already_stays() -> None:
    loaded = "import random\nbefore = random.Random"
    script = f"""
import sys
{loaded}
from digestry.cli import late_modules
late_modules.install()
import random
assert type(random) is type(sys) and random.Random is before
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_failure_while_it_is_loaded_is_raised_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "ipaddress.py").write_text(
        "import os\nif not os.path.exists(os.environ['READY']): raise RuntimeError('not yet')\nanswer = 42\n"
    )
    script = """
import ipaddress, os
try:
    ipaddress.answer
except RuntimeError as error:
    print(error)
open(os.environ["READY"], "w").close()
print(ipaddress.answer)
"""
    assert (
        ran(script, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}", READY=str(tmp_path / "r"))
        == "not yet\n42"
    )
