"""Types of JSON that several threads decode for the first time at once."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import digestry

SOURCE = Path(digestry.__file__).parent

RACE = """
import sys, threading
import msgspec
from digestry.model.descriptor import decode_hook
from digestry.model.json_types import prepared
from digestry.model.resolution import Resolutions
sys.setswitchinterval(1e-6)
together = threading.Barrier(8)
node = '{"mediaType": "a/b", "digest": "sha256:%s", "size": 1}' % ("a" * 64)
body = '{"resolutions": [{"repository": "a", "tags": [{"tag": "1", "target": %s}]}]}' % node
done = []
def decode():
    together.wait()
    found = msgspec.json.decode(body, type=prepared(Resolutions), dec_hook=decode_hook)
    done.append(found.resolutions[0].tags[0].target.size)
threads = [threading.Thread(target=decode) for _ in range(8)]
for one in threads: one.start()
for one in threads: one.join()
print(sum(done))
"""


def test_the_first_use_by_several_threads_ends_no_process() -> None:
    """Without ``prepared``, two of three such processes end by a segmentation fault."""
    for _ in range(6):
        done = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip()) == (0, "8"), done.stderr


PLAIN = {
    "dict",
    "list",
    "tuple",
    "str",
    "int",
    "float",
    "bool",
    "bytes",
    "object",
    "Any",
    "msgspec",
    "JsonObject",
}


@pytest.mark.long
def test_whatever_is_decoded_is_prepared() -> None:
    missing = []
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        if "msgspec" in text and path.name != "json_types.py":
            missing += [f"{path}:{line}" for line in unprepared(ast.parse(text))]
    assert not missing


def unprepared(tree: ast.Module) -> list[int]:
    """The lines at which a type of one's own is given to msgspec as it is."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            kind = _kind(node)
            names = {one.id for one in ast.walk(kind) if isinstance(one, ast.Name)} if kind else set()
            if "prepared" not in names and names - PLAIN:
                found.append(node.lineno)
    return found


def _kind(call: ast.Call) -> ast.expr | None:
    """The type that a call of msgspec decodes to; None for any other call."""
    name = ast.unparse(call.func)
    if name not in {
        f"msgspec.{form}.{call}" for form in ("json", "msgpack") for call in ("decode", "Decoder")
    } | {"msgspec.convert"}:
        return None
    stated = {keyword.arg: keyword.value for keyword in call.keywords}
    position = {"Decoder": 0, "convert": 1, "decode": 99}[name.rpartition(".")[2]]
    return call.args[position] if len(call.args) > position else stated.get("type")


def test_the_check_sees_what_it_is_for() -> None:
    wrong = "import msgspec\nmsgspec.json.decode(b'', type=Mine)\nmsgspec.convert({}, Mine)\n"
    right = "msgspec.json.decode(b'', type=prepared(Mine))\nmsgspec.json.decode(b'', type=dict[str, Any])\n"
    assert unprepared(ast.parse(wrong + right)) == [2, 3]
