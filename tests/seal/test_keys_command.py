# SPDX-License-Identifier: Apache-2.0
"""A command that signs, with everything that a command can do instead; and the verb ``auditspan keys``."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auditspan.cli import main
from auditspan_seal.errors import AuditspanError, KeyFileError, SignerError
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.keys import CommandSigner, KeyFileSigner, read_verifier_key, store
from auditspan_seal.log import segment
from auditspan_seal.log.directory import open_directory
from auditspan_seal.log.sequencer import Sequencer
from auditspan_seal.verify.trust import KeyRing, read_revocation
from tests.conftest import OURS
from tests.seal.keylogs import ORIGIN, feed, record, rotating_log, sequence

KEY = Ed25519PrivateKey.generate()
PUBLIC = VerifierKey(ORIGIN, KEY.public_key().public_bytes_raw())
DOCS = Path(__file__).parent.parent.parent / "docs" / "keys.md"

Script = Callable[..., list[str]]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Write a Python program that begins with the private key as `key` and the message as `message`."""

    def write(body: str, key: Ed25519PrivateKey = KEY, name: str = "sign.py") -> list[str]:
        path = tmp_path / name
        path.write_text(
            "import base64, os, sys, time\n"
            "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey\n"
            f"key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex({key.private_bytes_raw().hex()!r}))\n"
            "message = sys.stdin.buffer.read()\n"
            "def answer(data): sys.stdout.buffer.write(data); sys.stdout.flush()\n" + textwrap.dedent(body)
        )
        return [sys.executable, str(path)]

    return write


# -- good answers ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "body",
    [
        "answer(key.sign(message))",
        "answer(base64.b64encode(key.sign(message)))",
        "answer(base64.encodebytes(key.sign(message)))",  # in lines
        "answer(key.sign(message)); sys.stderr.write('signed\\n')",
        "answer(key.sign(message)); sys.stderr.write('x' * 1_000_000)",  # more than a pipe holds
    ],
)
@pytest.mark.slow
def test_a_command_signs(script: Script, body: str) -> None:
    message = os.urandom(300)
    assert CommandSigner(script(body), PUBLIC).sign(message) == KEY.sign(message)


@pytest.mark.slow
def test_a_message_longer_than_a_pipe(script: Script) -> None:
    message = os.urandom(3_000_000)
    assert CommandSigner(script("answer(key.sign(message))"), PUBLIC).sign(message) == KEY.sign(message)


@pytest.mark.slow
def test_a_helper_that_stays_behind_does_not_hold_up_the_answer(script: Script) -> None:
    body = "answer(key.sign(message))\nif os.fork() == 0: time.sleep(5)\nos._exit(0)"
    begin = time.monotonic()
    assert CommandSigner(script(body), PUBLIC, timeout=20).sign(b"x") == KEY.sign(b"x")
    assert time.monotonic() - begin < 4


@pytest.mark.slow
def test_the_command_is_not_audited_itself(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITSPAN_REQUIRED", "true")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "auditspan")
    monkeypatch.setenv("TRACEPARENT", "00-1-1-01")
    monkeypatch.setenv("KEPT", "kept")
    body = f"""
    assert not [name for name in os.environ if name.startswith({OURS!r})], os.environ
    assert os.environ["KEPT"] == "kept"
    answer(key.sign(message))
    """
    assert CommandSigner(script(body), PUBLIC).sign(b"x") == KEY.sign(b"x")


# -- everything else -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sys.exit('the vault is sealed')", "ended with exit code 1; it said: the vault is sealed"),
        ("answer(key.sign(message)); sys.exit(3)", "exit code 3"),
        ("os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("pass", "0 bytes, which are neither"),
        ("answer(b'rubbish')", "7 bytes, which are neither"),
        ("answer(key.sign(message)[:63])", "63 bytes"),
        ("answer(key.sign(message) + b'\\n')", "65 bytes"),
        ("answer(b'sig: ' + base64.b64encode(key.sign(message)))", "bytes, which are neither"),
        ("answer(os.urandom(64))", "with another key"),
        ("answer(bytes(64))", "with another key"),
        ("answer(Ed25519PrivateKey.generate().sign(message))", "with another key"),
        ("answer(key.sign(message[:-1]))", "something else than what it was given"),
        ("import hashlib; answer(key.sign(hashlib.sha512(message).digest()))", "something else"),
        ("answer(b'x' * 1_000_000)", "wrote more than 4096 bytes"),
        ("sys.stderr.write('a\\x1b[2Jb\\n\\nc' + 'x' * 100_000 + 'END'); sys.exit(1)", "xxEND."),
        ("sys.stderr.write('a\\x1b[2Jb'); sys.exit(1)", "a\ufffd[2Jb"),
        ("sys.stderr.buffer.write(b'\\xff'); sys.exit(1)", "\ufffd"),
    ],
)
@pytest.mark.slow
def test_an_answer_that_is_no_signature(script: Script, body: str, said: str) -> None:
    with pytest.raises(SignerError) as error:
        CommandSigner(script(body), PUBLIC).sign(b"message")
    assert said in error.value.what
    assert error.value.advice
    assert len(str(error.value)) < 1200


@pytest.mark.parametrize(
    "body", ["time.sleep(60)", "answer(key.sign(message)); sys.stderr.write('hm'); time.sleep(60)"]
)
@pytest.mark.slow
def test_a_command_that_hangs_is_ended_with_all_that_it_started(script: Script, tmp_path: Path, body: str) -> None:
    pids = tmp_path / "pids"
    body = f"child = os.fork()\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\n" + body
    begin = time.monotonic()
    with pytest.raises(SignerError, match=r"did not answer within 1\.5 seconds"):
        CommandSigner(script(body), PUBLIC, timeout=1.5).sign(b"message")
    assert time.monotonic() - begin < 5
    started = [int(line) for line in pids.read_text().split()]
    assert len(started) == 2
    deadline = time.monotonic() + 5
    while any(map(_runs, started)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_runs, started))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_command_that_does_not_read_but_hangs(tmp_path: Path) -> None:
    with pytest.raises(SignerError, match="did not answer"):
        CommandSigner(["/bin/sleep", "30"], PUBLIC, timeout=0.5).sign(os.urandom(1_000_000))


def test_a_program_that_cannot_be_run(tmp_path: Path) -> None:
    path = tmp_path / "sign"
    path.write_text("#!/bin/sh\n")
    for command in ([str(path)], [str(tmp_path)], [str(tmp_path / "absent")], ["nul\0"]):
        with pytest.raises(SignerError, match="cannot be run") as error:
            CommandSigner(command, PUBLIC).sign(b"message")
        assert "absolute path" in error.value.advice
    path.chmod(0o700)
    path.write_text("#!/absent/interpreter\n")
    with pytest.raises(SignerError, match="cannot be run"):
        CommandSigner([str(path)], PUBLIC).sign(b"message")


# -- signer.json -----------------------------------------------------------------------------------------------------
def test_a_description_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "signer.json"
    path.write_bytes(CommandSigner(["/bin/sign", "a b"], PUBLIC, 2.5).description())
    signer = CommandSigner.load(path, ORIGIN)
    assert (signer.command, signer.verifier_key) == (("/bin/sign", "a b"), PUBLIC)
    assert json.loads(path.read_bytes())["timeout"] == 2.5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "not JSON"), ("[]", "an object"), ("{}", "an object"),
        ({"command": ["/bin/sign"]}, "an object"),
        ({"command": ["/bin/sign"], "key": str(PUBLIC), "shell": True}, "nothing else"),
        ({"command": "/bin/sign", "key": str(PUBLIC)}, "a list of texts"),
        ({"command": [], "key": str(PUBLIC)}, "a list of texts"),
        ({"command": [""], "key": str(PUBLIC)}, "a list of texts"),
        ({"command": ["/bin/sign", 1], "key": str(PUBLIC)}, "a list of texts"),
        ({"command": ["/bin/sign", "\0"], "key": str(PUBLIC)}, "NUL"),
        ({"command": ["/bin/sign"], "key": "x"}, "no verifier key"),
        ({"command": ["/bin/sign"], "key": 1}, "no verifier key"),
        ({"command": ["/bin/sign"], "key": str(VerifierKey("other", PUBLIC.public))}, "this log is"),
        ({"command": ["/bin/sign"], "key": str(PUBLIC), "timeout": 0}, "timeout"),
        ({"command": ["/bin/sign"], "key": str(PUBLIC), "timeout": True}, "timeout"),
        ({"command": ["/bin/sign"], "key": str(PUBLIC), "timeout": "10"}, "timeout"),
        ({"command": ["/bin/sign"], "key": str(PUBLIC), "timeout": 1e9}, "timeout"),
    ],
)  # fmt: skip
def test_a_description_that_cannot_be_used(tmp_path: Path, content: object, said: str) -> None:
    path = tmp_path / "signer.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(KeyFileError) as error:
        CommandSigner.load(path, ORIGIN)
    assert said in error.value.what


def test_a_description_that_others_can_write_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "signer.json"
    path.write_bytes(CommandSigner(["/bin/sign"], PUBLIC).description())
    path.chmod(0o644)
    assert CommandSigner.load(path, ORIGIN).command == ("/bin/sign",)
    path.chmod(0o664)
    with pytest.raises(KeyFileError, match="can be written by other users"):
        CommandSigner.load(path, ORIGIN)


# -- a log that a command signs --------------------------------------------------------------------------------------
@pytest.mark.slow
def test_while_the_command_fails_records_wait_and_then_go_on(script: Script, log_folder: Path) -> None:
    directory = open_directory(log_folder, create=True)
    command = script("answer(key.sign(message))")
    store.create(
        directory.path, directory.origin, command=CommandSigner(command, VerifierKey(directory.origin, PUBLIC.public))
    )
    record(directory)
    sequence(directory)
    script("sys.exit('sealed')")
    record(directory, 3)
    sequencer = Sequencer.acquire(directory)
    assert sequencer is not None
    with pytest.raises(SignerError, match="sealed"):
        sequencer.integrate()
    assert sequencer.size == 2
    assert len(segment.names(directory.segments)) == 1
    script("answer(key.sign(message))")
    assert sequencer.integrate() == 3
    sequencer.close()
    ring = KeyRing(directory.origin, [VerifierKey("", PUBLIC.public)])
    assert feed(ring, directory) == []
    assert ring.trust == "pinned"


@pytest.mark.slow
def test_a_next_command_that_fails_does_not_hold_up_records(script: Script, log_folder: Path) -> None:
    directory, keys = rotating_log(log_folder, 0)
    next_key = VerifierKey(directory.origin, PUBLIC.public)
    store.prepare(
        directory.path, directory.origin, command=CommandSigner(script("answer(key.sign(message))"), next_key)
    )
    script("sys.exit('sealed')")
    record(directory, 2)
    sequencer = Sequencer.acquire(directory)
    assert sequencer is not None
    size = sequencer.size
    assert sequencer.integrate() == 2
    with pytest.raises(SignerError, match="sealed"):
        sequencer.change_key()
    assert sequencer.size == size + 2
    script("answer(key.sign(message))")
    assert sequencer.change_key()
    record(directory)
    assert sequencer.integrate() == 1
    sequencer.close()
    ring = KeyRing(directory.origin, keys)
    assert feed(ring, directory) == []
    assert [key for _, key in ring.chain] == [*keys, next_key]
    assert not (directory.path / "key.pem").exists()


@pytest.mark.slow
def test_the_example_of_the_documentation_signs(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    found = re.search(r"```sh\n(#!/bin/sh\n.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None
    program = tmp_path / "sign"
    program.write_text(found[1].replace("/etc/auditspan/private.pem", str(tmp_path / "private.pem")))
    program.chmod(0o700)
    (tmp_path / "private.pem").write_bytes(
        KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    assert CommandSigner([str(program)], PUBLIC).sign(b"message\n") == KEY.sign(b"message\n")


# -- the verb --------------------------------------------------------------------------------------------------------
Keys = Callable[..., tuple[int, Any]]


@pytest.fixture
def keys(log_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Keys:
    """Run ``auditspan keys … --json`` on the log directory; return exit code and what was printed."""
    monkeypatch.setenv("AUDITSPAN_DIR", str(log_folder))

    def run(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = main(["keys", *arguments, "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else err

    return run


def test_the_life_of_a_key(keys: Keys, log_folder: Path, tmp_path: Path) -> None:
    code, made = keys("new")
    assert code == 0
    first = read_verifier_key(log_folder / "log.vkey")
    assert made["vkey"] == str(first)
    assert stat.S_IMODE((log_folder / "key.pem").stat().st_mode) == 0o600
    assert keys("new")[0] == 2
    directory = open_directory(log_folder)
    record(directory)
    sequence(directory)
    assert "has begun" in keys("new")[1]

    code, changed = keys("rotate", "--not-after", "365d", "--reason", "yearly")
    assert (code, changed["done"], changed["index"]) == (0, True, 2)
    second = read_verifier_key(log_folder / "log.vkey")
    assert changed["new"]["vkey"] == str(second) != str(first)

    file = tmp_path / "revoked.json"
    revoke = ("revoke", first.key_id.hex(), "--since", "2026-11-20T08:00Z", "--reason", "4711", "--out", str(file))
    code, revoked = keys(*revoke)
    assert (code, revoked["done"], revoked["since"]) == (0, True, "1795161600000000000")
    assert read_revocation(file).certified_by(second)
    assert "cannot be written" in keys(*revoke)[1]
    assert "signs the log now" in keys("revoke", second.key_id.hex(), *revoke[2:])[1]
    assert "never had a key" in keys("revoke", "00000000", *revoke[2:])[1]
    assert "in the future" in keys(*revoke[:3], "9d", *revoke[4:])[1]

    code, shown = keys("show")
    assert code == 0, shown
    assert [link["vkey"] for link in shown["chain"]] == [str(first), str(second)]
    assert shown["chain"][0]["revoked_since"] == "1795161600000000000"
    assert shown["chain"][1]["reason"] == "yearly"
    assert shown["current"]["vkey"] == str(second)
    assert shown["prepared"] is None
    ring = KeyRing(directory.origin, [second])
    assert [code.value for code, _ in feed(ring, directory)] == ["key_revoked"]  # replaced after it was stolen


@pytest.mark.slow
def test_a_running_process_changes_its_key_when_it_is_told(keys: Keys, log_folder: Path) -> None:
    directory, chain = rotating_log(log_folder, 0)
    before = directory.checkpoint.stat().st_mtime_ns
    agent = subprocess.Popen(
        [sys.executable, "-m", "auditspan.cli", "agent"], env=os.environ | {"AUDITSPAN_DIR": str(log_folder)}
    )
    try:
        deadline = time.monotonic() + 30
        # Who takes a directory over shows its checkpoint anew; trying to take it here could be in the agent's way.
        while directory.checkpoint.stat().st_mtime_ns == before and time.monotonic() < deadline:
            time.sleep(0.05)
        code, changed = keys("rotate", "--wait", "30")
        assert (code, changed["done"]) == (0, True)
    finally:
        agent.terminate()
        assert agent.wait(20) == 0
    record(directory)
    sequence(directory)
    ring = KeyRing(directory.origin, chain)
    assert feed(ring, directory) == []
    assert len(ring.chain) == 2


def test_nobody_does_it_in_time(keys: Keys, log_folder: Path) -> None:
    directory, _ = rotating_log(log_folder, 0)
    idle = Sequencer.acquire(directory)
    assert idle is not None
    code, changed = keys("rotate", "--wait", "0.3")
    assert (code, changed["done"], changed["index"]) == (3, False, None)
    code, shown = keys("show")
    assert code == 3
    assert shown["prepared"]["vkey"] == changed["new"]["vkey"]
    assert "prepared already" in keys("rotate", "--reason", "again")[1]
    idle.close()
    code, again = keys("rotate")
    assert (code, again["new"], again["done"]) == (0, changed["new"], True)


@pytest.mark.slow
def test_a_command_takes_over_from_a_file(keys: Keys, log_folder: Path, script: Script, tmp_path: Path) -> None:
    keys("new")
    public = tmp_path / "public.pem"
    public.write_bytes(
        KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    command = " ".join(script("answer(base64.b64encode(key.sign(message)))"))
    assert "not known" in keys("rotate", "--command", command)[1]
    assert "no program" in keys("rotate", "--command", "/absent/sign", "--public", str(public))[1]
    assert "quotes" in keys("rotate", "--command", "'", "--public", str(public))[1]
    assert "without --command" in keys("rotate", "--public", str(public))[1]
    code, changed = keys("rotate", "--command", command, "--public", str(public), "--timeout", "20")
    assert (code, changed["done"]) == (0, True)
    code, shown = keys("show")
    assert (code, shown["current"]["signer"]) == (0, "command")
    assert not (log_folder / "key.pem").exists()
    script("sys.exit('sealed')")
    assert "no private key is on this machine" in keys("rotate")[1]
    assert keys("show")[1]["prepared"] is None
    assert "sealed" in keys("rotate", "--file")[1]  # the old key must certify the change, and cannot
    assert keys("show")[0] == 3


@pytest.mark.slow
def test_a_command_that_does_not_sign_is_not_taken(
    keys: Keys, log_folder: Path, script: Script, tmp_path: Path
) -> None:
    public = tmp_path / "key.vkey"
    public.write_text(f"{VerifierKey('other', PUBLIC.public)}\n")
    command = " ".join(script("answer(bytes(64))"))
    assert "of another log" in keys("new", "--command", command, "--public", str(public))[1]
    origin = open_directory(log_folder).origin
    public.write_text(f"{VerifierKey(origin, PUBLIC.public)}\n")
    assert "another key" in keys("new", "--command", command, "--public", str(public))[1]
    assert not (log_folder / "signer.json").exists()


@pytest.mark.parametrize("moment", ["", "tomorrow", "-1d", "2026-13-01", "9" * 30, "1969-01-01"])
def test_what_is_no_time_is_wrong_usage(moment: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["keys", "rotate", f"--not-after={moment}"])
    assert ended.value.code == 2
    assert "is no time" in capsys.readouterr().err


def test_an_expiry_in_the_past_is_refused(keys: Keys, log_folder: Path) -> None:
    keys("new")
    assert "expired already" in keys("rotate", "--not-after", "2020-01-01")[1]


def test_for_people(log_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory, keys = rotating_log(log_folder, 2)
    assert main(["keys", "show", str(log_folder)]) == 0
    shown = capsys.readouterr().out
    for key in keys:
        assert key.key_id.hex() in shown
    assert "all is well" in shown
    assert main(["keys", "rotate", str(log_folder), "--not-after", "10d"]) == 0
    assert "replaced by" in capsys.readouterr().out
    assert main(["keys", "show", str(log_folder)]) == 3
    assert "expires in 9 days" in capsys.readouterr().out
    directory.key.chmod(0o644)
    assert main(["keys", "show", str(log_folder)]) == 3
    assert "chmod 600" in capsys.readouterr().out


def test_another_key_in_the_place_of_the_right_one_is_said(keys: Keys, log_folder: Path) -> None:
    directory, _ = rotating_log(log_folder, 0)
    directory.key.unlink()
    KeyFileSigner.load_or_create(directory.key, directory.origin)
    code, shown = keys("show")
    assert code == 3
    assert "is not the key that signs this log" in shown["attention"][0]
    assert "is not the key that signs this log" in keys("rotate")[1]
    assert store.prepared(directory.path, directory.origin) is None
    with pytest.raises(AuditspanError, match="is not signed with the key"):
        Sequencer.acquire(directory)


@pytest.mark.slow
def test_a_key_that_was_replaced_is_not_taken_again(
    keys: Keys, log_folder: Path, script: Script, tmp_path: Path
) -> None:
    public = tmp_path / "key.vkey"
    public.write_text(f"{VerifierKey(open_directory(log_folder, create=True).origin, PUBLIC.public)}\n")
    command = ("--command", " ".join(script("answer(key.sign(message))")), "--public", str(public))
    assert keys("new", *command)[0] == 0
    assert keys("rotate", "--file")[0] == 0
    assert "does not count again" in keys("rotate", *command)[1]
