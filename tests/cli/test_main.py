"""The command line as a whole: exit codes, what is said where, and what happens to a lost reader."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from digestry import __version__
from digestry.cli import exit_codes, main
from digestry.errors import NotFound, RemoteNotFound, StorageError
from tests.support import PATIENCE


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIGESTRY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the console script in this process: its exit code, output and errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["digestry", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out, captured.err

    return call


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Replaces the verb ``version`` by one that calls a function."""

    def replace(body: Callable[[], object]) -> None:
        command = click.Command("version", callback=body)
        monkeypatch.setattr("digestry.cli.version.version", command)

    return replace


Verb = Callable[[Callable[[], object]], None]


def raising(error: BaseException) -> Callable[[], object]:
    def body() -> object:
        raise error

    return body


def script(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
    """The console script in a process of its own."""
    command = [sys.executable, "-c", "from digestry.cli.main import main; main()", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]


def test_version(run: Run) -> None:
    assert run("version") == (0, f"digestry {__version__}\n", "")
    for option in ("--version", "-v"):
        assert run(option) == (0, f"digestry {__version__}\n", "")


def test_help_lists_every_verb_and_every_exit_code(run: Run) -> None:
    for option in ("-h", "--help"):
        code, out, _ = run(option)
        assert code == 0
        for name in main._COMMANDS:
            assert f"\n  {name} " in out
        assert exit_codes.EPILOG.splitlines()[-1].strip() in out


def test_help_imports_no_verb() -> None:
    verbs = {f"digestry.cli.{module}" for module, _ in main._COMMANDS.values()}
    check = (
        "import sys\nfrom digestry.cli.main import main\n"
        "try: main()\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", check, "--help"], capture_output=True, text=True, check=True)
    assert "serve" in done.stdout
    assert verbs.isdisjoint(done.stderr.split())


@pytest.mark.parametrize("name", main._COMMANDS)
def test_every_verb_has_help(run: Run, name: str) -> None:
    module, summary = main._COMMANDS[name]
    if not (Path(main.__file__).parent / f"{module}.py").exists():
        pytest.skip(f"{name} is not written yet")
    code, out, err = run(name, "--help")
    assert (code, err) == (0, "")
    assert f"digestry {name}" in out
    assert summary.endswith(".")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["--frobnicate"],
        ["version", "extra"],
        ["config", "get", "frobnicate"],
        ["config", "set", "registry"],
    ],
)
def test_wrong_usage(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert code == exit_codes.USAGE
    assert out == ""
    assert "Usage: digestry" in err


@pytest.mark.parametrize(
    ("arguments", "proposal"),
    [
        (["imags"], "Did you mean images"),
        (["PUSH"], "Did you mean push"),
        (["build"], "Did you mean digestry pack?"),
        (["logn"], "Did you mean login"),
        (["token", "rotatekey"], "Did you mean rotate-key?"),
        (["images", "--digest"], "'--digests'"),
        (["config", "get", "registri"], "Did you mean registry?"),
        (["image", "ls"], "Did you mean digestry images?"),
        (["image", "rm", "app"], "Did you mean digestry rmi?"),
        (["manifest", "create", "app:1"], "Did you mean digestry index create?"),
        (["images", "-a"], "All images are listed"),
        (["copy", "--all", "a", "b"], "--all-platforms"),
        (["pull", "--tls-verify=false", "a"], "config set insecure-registries"),
        (["run", "alpine"], "runs no containers"),
        (["ls", "-q", "example.com"], "{{.Repository}}"),
    ],
)
def test_what_was_meant(run: Run, arguments: list[str], proposal: str) -> None:
    code, _, err = run(*arguments)
    assert code == exit_codes.USAGE
    assert proposal in err


@pytest.mark.parametrize("command", ["pull", "tags", "inspect", "digest"])
def test_a_name_as_skopeo_writes_it(run: Run, command: str) -> None:
    code, _, err = run(command, "docker://example.com/team/app:1")
    assert code == exit_codes.USAGE
    assert "leave out docker://, and write example.com/team/app:1" in err


def test_what_nothing_is_like(run: Run) -> None:
    assert "Did you mean" not in run("frobnicate")[2]


@pytest.mark.parametrize("arguments", [["\x1b[31m"], ["--\x9b31m"], ["config", "get", "\x1b[31m"]])
def test_wrong_usage_is_not_echoed_raw(run: Run, arguments: list[str]) -> None:
    code, _, err = run(*arguments)
    assert code == exit_codes.USAGE
    assert all(line.isprintable() for line in err.splitlines())


def test_a_verbs_own_complaint_is_not_echoed_raw(run: Run, verb: Verb) -> None:
    verb(raising(click.BadParameter("no \x1b[31m\u202e such thing")))
    code, _, err = run("version")
    assert code == exit_codes.USAGE
    assert r"\u202e such thing" in err
    assert all(line.isprintable() for line in err.splitlines())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("it is \x1b[31mgone", hint="look \x07elsewhere"), exit_codes.NOT_FOUND),
        (RemoteNotFound("it is \x1b[31mgone", status=404, hint="look \x07elsewhere"), exit_codes.NOT_FOUND),
        (StorageError("it is \x1b[31mgone", hint="look \x07elsewhere"), exit_codes.STORAGE),
    ],
)
def test_an_error_is_one_line_and_a_hint(run: Run, verb: Verb, error: Exception, code: int) -> None:
    verb(raising(error))
    said = "digestry: it is \\x1b[31mgone\n  hint: look \\x07elsewhere\n"
    assert run("version") == (code, "", said)


@pytest.mark.parametrize(
    ("result", "code"), [(None, 0), (0, 0), (1, exit_codes.FINDINGS), (3, exit_codes.REMOTE), ("text", 0)]
)
def test_a_verb_gives_its_exit_code(run: Run, verb: Verb, result: object, code: int) -> None:
    verb(lambda: result)
    assert run("version") == (code, "", "")


def test_a_verb_may_exit(run: Run, verb: Verb) -> None:
    verb(raising(click.exceptions.Exit(5)))
    assert run("version")[0] == 5
    verb(raising(SystemExit(6)))
    assert run("version")[0] == 6


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort(), EOFError()])
def test_an_interrupt(run: Run, verb: Verb, error: BaseException) -> None:
    verb(raising(error))
    code, out, err = run("version")
    assert (code, out) == (exit_codes.INTERRUPTED, "")
    assert "digestry: interrupted\n" in err


@pytest.mark.parametrize(
    "error", [ValueError("\x1b[31m"), OSError(5, "odd"), ImportError("x"), RecursionError()]
)
def test_a_defect_is_never_taken_for_a_finding(run: Run, verb: Verb, error: Exception) -> None:
    verb(raising(error))
    code, out, err = run("version")
    assert (code, out) == (exit_codes.INTERNAL, "")
    assert "Traceback" in err
    assert f"digestry: a defect in digestry: {type(error).__name__}\n  hint: please report it" in err
    assert all(line.isprintable() for line in err.splitlines())


@pytest.mark.parametrize("arguments", [["config", "show"], ["--help"], ["version"]])
def test_a_reader_that_left_is_no_finding_and_no_noise(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with script(*arguments, stdout=writing) as process:
            _, err = process.communicate(timeout=PATIENCE)
    finally:
        os.close(writing)
    assert process.returncode == exit_codes.UNREAD
    assert err == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["config", "show"], ["--help"], ["images", "--help"], ["--version"]])
def test_a_full_disk_under_the_output(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full, script(*arguments, stdout=full) as process:
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == exit_codes.STORAGE
    assert err == b"digestry: cannot write the output: No space left on device\n"


def test_an_output_that_cannot_say_a_name(home: Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text('docker-config = "/käse/\U0001f433"\n', encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    with script("config", "get", "docker-config", stdout=subprocess.PIPE, env=environment) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, b"/k\xe4se/\\U0001f433\n", b"")


@pytest.mark.parametrize(
    ("closed", "code", "said"),
    [
        (">&-", exit_codes.STORAGE, "digestry: cannot write the output: standard output is closed\n"),
        (">&- 2>&- <&-", exit_codes.STORAGE, ""),
        ("2>&- <&-", exit_codes.OK, ""),
    ],
)
@pytest.mark.parametrize("arguments", ["config show", "--help", "images --help", "--version", "images"])
def test_closed_streams(closed: str, code: int, said: str, arguments: str) -> None:
    """What nobody can have read is no success."""
    command = f"exec {sys.executable} -c 'from digestry.cli.main import main; main()' {arguments} {closed}"
    done = subprocess.run(["/bin/sh", "-c", command], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, said)


def test_no_file_gets_the_number_of_a_closed_stream() -> None:
    """Else what is printed would be in it."""
    check = """
import os, sys
from digestry.cli.main import main
try:
    main()
finally:
    os._exit(os.open(os.devnull, os.O_RDONLY))
"""
    command = f'exec {sys.executable} -c "$CHECK" version <&- >&- 2>&-'
    environment = {**os.environ, "CHECK": check}
    done = subprocess.run(["/bin/sh", "-c", command], check=False, env=environment)
    assert done.returncode >= 3
