# SPDX-License-Identifier: Apache-2.0
"""Key files, which key signs, and the change to the next one, whatever dies in the middle of it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from opentelemetry.sdk.trace import TracerProvider

from auditspan_seal.errors import AuditspanError, KeyFileError
from auditspan_seal.formats.merkle import EMPTY_ROOT
from auditspan_seal.formats.note import Checkpoint, Note, VerifierKey
from auditspan_seal.keys import (
    CommandSigner,
    KeyFileSigner,
    read_verifier_key,
    read_verifier_keys,
    sign_checkpoint,
    store,
)
from auditspan_seal.keys.places import Places
from auditspan_seal.log.sequencer import Sequencer
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
from auditspan_seal.verify.trust import KeyRing
from tests.records import audit_attributes
from tests.seal.keylogs import ORIGIN, feed, record, rotating_log, sequence

PLAIN = serialization.NoEncryption()


def pem(key: object, encryption: serialization.KeySerializationEncryption = PLAIN) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)  # type: ignore[attr-defined, no-any-return]


def write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


GOOD = pem(Ed25519PrivateKey.generate())


# -- the file --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620, 0o602, 0o610, 0o666, 0o400 | 0o040])
def test_a_key_file_that_is_open_to_others(tmp_path: Path, mode: int) -> None:
    with pytest.raises(KeyFileError, match=r"can be (read|written) by other users") as error:
        KeyFileSigner.load(write(tmp_path / "key.pem", GOOD, mode), ORIGIN)
    assert "chmod" in error.value.advice


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_file_of_its_owner_only(tmp_path: Path, mode: int) -> None:
    signer = KeyFileSigner.load(write(tmp_path / "key.pem", GOOD, mode), ORIGIN)
    assert signer.verifier_key.verifies(b"x", signer.sign(b"x"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"x" * 70_000, "longer than 65536"),
        (b"rubbish", "holds no Ed25519 private key"),
        (GOOD[:60], "holds no Ed25519 private key"),
        (pem(rsa.generate_private_key(65537, 2048)), "RSAPrivateKey"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "of another kind (EC"),
        (pem(dsa.generate_private_key(2048)), "DSAPrivateKey"),
        (pem(ed448.Ed448PrivateKey.generate()), "Ed448PrivateKey"),
        (pem(x25519.X25519PrivateKey.generate()), "X25519PrivateKey"),
        (pem(Ed25519PrivateKey.generate(), serialization.BestAvailableEncryption(b"x")), "encrypted with a passphrase"),
        (
            Ed25519PrivateKey.generate()
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            "holds no Ed25519 private key",
        ),
    ],
)
def test_what_is_no_key(tmp_path: Path, content: bytes, said: str) -> None:
    path = write(tmp_path / "key.pem", content)
    for load in (KeyFileSigner.load, KeyFileSigner.load_or_create):
        with pytest.raises(KeyFileError) as error:
            load(path, ORIGIN)
        assert said in error.value.what
        assert error.value.advice
    assert path.read_bytes() == content  # a key that cannot be used is never replaced


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, said in (("folder", "is a folder"), ("pipe", "not a regular file"), ("absent", "cannot be read")):
        with pytest.raises(KeyFileError, match=said):
            KeyFileSigner.load(tmp_path / name, ORIGIN)
    with pytest.raises(KeyFileError, match="could not be made"):
        KeyFileSigner.load_or_create(tmp_path / "absent" / "key.pem", ORIGIN)
    with pytest.raises(KeyFileError, match="cannot be read"):
        KeyFileSigner.load(tmp_path / ("x" * 300), ORIGIN)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702])
def test_a_folder_that_others_can_write(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    for load in (KeyFileSigner.load, KeyFileSigner.load_or_create):
        with pytest.raises(KeyFileError, match="in a folder that other users can write") as error:
            load(folder / "key.pem", ORIGIN)
        assert "chmod go-w" in error.value.advice
    assert list(folder.iterdir()) == []  # nor is a key made there
    folder.chmod(0o1777)  # like /tmp: others cannot replace what is mine
    assert KeyFileSigner.load_or_create(folder / "key.pem", ORIGIN)


def test_symbolic_links_are_followed_only_where_nobody_else_can_lay_them(tmp_path: Path) -> None:
    closed, open_ = tmp_path / "closed", tmp_path / "open"
    closed.mkdir(mode=0o700)
    open_.mkdir()
    real = write(closed / "real.pem", GOOD)
    link = tmp_path / "key.pem"
    link.symlink_to(real)
    assert KeyFileSigner.load(link, ORIGIN)  # mounted secrets are links
    write(open_ / "real.pem", GOOD)
    (open_ / "link.pem").symlink_to(real)
    open_.chmod(0o777)
    for target in (open_ / "real.pem", open_ / "link.pem"):
        link.unlink()
        link.symlink_to(target)
        with pytest.raises(KeyFileError, match="in a folder that other users can write"):
            KeyFileSigner.load(link, ORIGIN)
    real.chmod(0o644)
    link.unlink()
    link.symlink_to("closed/real.pem")
    with pytest.raises(KeyFileError, match="can be read by other users"):
        KeyFileSigner.load(link, ORIGIN)


def test_a_new_key_is_not_made_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "key.pem").symlink_to(tmp_path / "elsewhere.pem")
    with pytest.raises(KeyFileError, match="cannot be read"):
        KeyFileSigner.load_or_create(tmp_path / "key.pem", ORIGIN)
    assert not (tmp_path / "elsewhere.pem").exists()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(KeyFileError, match="too many"):
        KeyFileSigner.load(tmp_path / "loop", ORIGIN)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_that_belongs_to_somebody_else(tmp_path: Path) -> None:
    path = write(tmp_path / "key.pem", GOOD)
    os.chown(path, 12345, 12345)
    with pytest.raises(KeyFileError, match="belongs to another user"):
        KeyFileSigner.load(path, ORIGIN)
    os.chown(tmp_path, 12345, 12345)
    assert KeyFileSigner.load(path, ORIGIN)  # root looks at a directory of the user that signs


def test_many_at_once_make_one_key(tmp_path: Path) -> None:
    found: list[VerifierKey] = []

    def make() -> None:
        found.append(KeyFileSigner.load_or_create(tmp_path / "key.pem", ORIGIN).verifier_key)

    threads = [threading.Thread(target=make) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1
    assert os.listdir(tmp_path) == ["key.pem"]
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


def test_files_of_public_keys(tmp_path: Path) -> None:
    keys = [KeyFileSigner(Ed25519PrivateKey.generate(), ORIGIN).verifier_key for _ in range(3)]
    path = tmp_path / "keys"
    path.write_text("# the keys of the log\n" + "\n\n".join(map(str, keys)))
    assert read_verifier_keys(path) == keys
    with pytest.raises(KeyFileError, match="holds 3 verifier keys"):
        read_verifier_key(path)
    for content in ("", "# nothing\n", f"{keys[0]}\nrubbish\n"):
        path.write_text(content)
        with pytest.raises(KeyFileError, match="holds no verifier key"):
            read_verifier_keys(path)


# -- which one -------------------------------------------------------------------------------------------------------
def command_signer(folder: Path, origin: str = ORIGIN) -> CommandSigner:
    """A command that signs with a key of its own."""
    key = Ed25519PrivateKey.generate()
    program = folder / f"sign-{os.urandom(4).hex()}.py"
    program.write_text(
        "import sys\nfrom cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey\n"
        f"key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex({key.private_bytes_raw().hex()!r}))\n"
        "sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read()))\n"
    )
    return CommandSigner(
        [sys.executable, str(program)], VerifierKey(origin, key.public_key().public_bytes_raw()), timeout=30
    )


def test_the_order_of_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, elsewhere = tmp_path / "log", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    with pytest.raises(KeyFileError, match="cannot be read"):
        store.current(folder, ORIGIN)
    file = store.current(folder, ORIGIN, create=True).verifier_key
    assert store.current(folder, ORIGIN).verifier_key == file
    command = command_signer(tmp_path)
    (folder / "signer.json").write_bytes(command.description())
    assert store.current(folder, ORIGIN, create=True).verifier_key == command.verifier_key
    monkeypatch.setenv("AUDITSPAN_KEY_FILE", str(elsewhere / "my.pem"))
    given = store.current(folder, ORIGIN, create=True).verifier_key
    assert given not in (file, command.verifier_key)
    key = store.prepare(folder, ORIGIN)
    assert (elsewhere / "next-my.pem").exists()
    store.complete(folder, ORIGIN)
    assert store.current(folder, ORIGIN).verifier_key == key
    assert sorted(os.listdir(elsewhere)) == ["my.pem"]
    assert KeyFileSigner.load(folder / "key.pem", ORIGIN).verifier_key == file


def test_what_cannot_be_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    with pytest.raises(KeyFileError, match="cannot be read"):  # nothing to change from
        store.prepare(folder, ORIGIN)
    store.create(folder, ORIGIN)
    with pytest.raises(KeyFileError, match="There is a signer already"):
        store.create(folder, ORIGIN)
    with pytest.raises(KeyFileError, match="longer"):
        store.prepare(folder, ORIGIN, reason="x" * 1001)
    command = command_signer(tmp_path)
    with monkeypatch.context() as patch:
        patch.setenv("AUDITSPAN_KEY_FILE", str(folder / "key.pem"))
        with pytest.raises(KeyFileError, match="never be used"):
            store.prepare(folder, ORIGIN, command=command)
        (tmp_path / "link.pem").symlink_to(folder / "key.pem")
        patch.setenv("AUDITSPAN_KEY_FILE", str(tmp_path / "link.pem"))
        with pytest.raises(KeyFileError, match="symbolic link"):
            store.prepare(folder, ORIGIN)
    store.prepare(folder, ORIGIN)
    with pytest.raises(KeyFileError, match="being made already"):
        store.prepare(folder, ORIGIN)
    (folder / "next-signer.json").write_bytes(command.description())
    with pytest.raises(KeyFileError, match="Two next keys"):
        store.prepared(folder, ORIGIN)
    (folder / "next-key.pem").unlink()
    store.complete(folder, ORIGIN)
    with pytest.raises(KeyFileError, match="the current one"):
        store.prepare(folder, ORIGIN, command=command)
    write(folder / "key.pem", GOOD)
    with pytest.raises(KeyFileError, match="Move it away"):
        store.prepare(folder, ORIGIN)


def test_what_is_said_about_a_change_belongs_to_its_key(tmp_path: Path) -> None:
    store.create(tmp_path, ORIGIN)
    store.prepare(tmp_path, ORIGIN, not_after=9, reason="yearly", actor="carol")
    prepared = store.prepared(tmp_path, ORIGIN)
    assert prepared is not None
    assert (prepared.not_after, prepared.reason, prepared.actor) == (9, "yearly", "carol")
    write(tmp_path / "next-key.pem", GOOD)  # put there by hand
    prepared = store.prepared(tmp_path, ORIGIN)
    assert prepared is not None
    assert (prepared.not_after, prepared.reason, prepared.actor) == (None, "", "")
    (tmp_path / "next-change.json").write_text("{")
    with pytest.raises(KeyFileError, match="damaged"):
        store.prepared(tmp_path, ORIGIN)
    (tmp_path / "next-change.json").unlink()
    assert store.prepared(tmp_path, ORIGIN) is not None


# -- what dies in the middle -----------------------------------------------------------------------------------------
KINDS = ["file to file", "file to command", "command to file", "command to command"]
CHECKPOINT = Checkpoint(ORIGIN, 0, EMPTY_ROOT)
# Runs a function in children that end without a word before their first, second, … change of the file system.
DYING = """
import json, os, subprocess, sys
from pathlib import Path
from auditspan_seal.formats.note import Note
from auditspan_seal.keys import store
WHAT, BASE, RESULTS, ORIGIN, NOTE = sys.argv[1:]
note = Note.parse(NOTE)
DO = {
    "complete": lambda path: store.complete(path, ORIGIN),
    "settle": lambda path: store.settle(path, ORIGIN, note),
    "prepare": lambda path: store.prepare(path, ORIGIN, not_after=9, reason="yearly"),
}[WHAT]
NAMES = ("open", "link", "unlink", "replace", "fsync", "pwrite", "fchmod", "fdopen")
step = 0
while True:
    step += 1
    target = Path(RESULTS) / f"{Path(BASE).name}.{step}"
    subprocess.run(["cp", "-a", BASE, str(target)], check=True)  # hard links in it stay what they are
    if os.fork() == 0:
        count = 0
        def dying(real):
            def call(*arguments, **named):
                global count
                count += 1
                if count == step:
                    os._exit(9)
                return real(*arguments, **named)
            return call
        for name in NAMES:
            setattr(os, name, dying(getattr(os, name)))
        DO(target)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.wait()[1]) == 0:
        break
"""


def die(what: str, base: Path, results: Path, note: Note) -> list[Path]:
    """Return a copy of the directory for each step before which a process that does it has died."""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DYING, what, str(base), str(results), ORIGIN, str(note)],
        check=True,
        timeout=120,
    )
    return sorted(results.glob(f"{base.name}.*"), key=lambda path: int(path.suffix[1:]))


def begin(tmp_path: Path, kind: str) -> tuple[Path, Note, VerifierKey, bytes]:
    """Make a directory with a prepared change that is in the log; return it, the note, the next key, the old secret."""
    folder, results = tmp_path / "begin", tmp_path / "results"
    folder.mkdir()
    results.mkdir()
    before, after = kind.split(" to ")
    store.create(folder, ORIGIN, command=command_signer(tmp_path) if before == "command" else None)
    old = store.current(folder, ORIGIN)
    key = store.prepare(folder, ORIGIN, command=command_signer(tmp_path) if after == "command" else None)
    secret = (folder / "key.pem").read_bytes().split(b"\n")[1] if before == "file" else b""
    prepared = store.prepared(folder, ORIGIN)
    assert prepared is not None
    return folder, sign_checkpoint(old, CHECKPOINT, prepared), key, secret


def check_changed(folder: Path, note: Note, key: VerifierKey, secret: bytes) -> None:
    """Whatever has died here: the log goes on with the next key, and the old private key is gone."""
    signer = store.settle(folder, ORIGIN, note)
    assert signer.verifier_key == key
    assert store.current(folder, ORIGIN).verifier_key == key
    assert store.prepared(folder, ORIGIN) is None
    assert Places.of(folder).next is None
    assert read_verifier_key(folder / "log.vkey") == key
    left = {path.name for path in folder.iterdir() if not path.name.startswith(".") and path.name != "next-change.json"}
    assert left in ({"key.pem", "log.vkey"}, {"signer.json", "log.vkey"})
    assert not secret or not any(secret in path.read_bytes() for path in folder.iterdir())
    assert store.settle(folder, ORIGIN, note).verifier_key == key  # and once more
    assert store.prepare(folder, ORIGIN) != key  # the next change can be made


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_death_at_any_step_of_completing(tmp_path: Path, kind: str) -> None:
    folder, note, key, secret = begin(tmp_path, kind)
    died = die("complete", folder, tmp_path / "results", note)
    assert len(died) > 8
    again = []
    for path in died:
        if path.suffix in (".5", ".9"):  # and a second death in the recovery
            again += die("settle", path, tmp_path / "results", note)
    assert len(again) > 8
    for path in (*died, *again):
        check_changed(path, note, key, secret)


@pytest.mark.slow
def test_a_death_at_any_step_of_preparing(tmp_path: Path) -> None:
    folder, results = tmp_path / "begin", tmp_path / "results"
    folder.mkdir()
    results.mkdir()
    old = store.create(folder, ORIGIN)
    note = sign_checkpoint(store.current(folder, ORIGIN), CHECKPOINT)
    died = die("prepare", folder, results, note)
    assert len(died) > 8
    prepared = 0
    for path in died:
        assert store.settle(path, ORIGIN, note).verifier_key == old  # it is not in the log: the old key goes on
        after = store.prepared(path, ORIGIN)
        if after is not None:
            assert (after.not_after, after.reason) == (9, "yearly")  # never without what belongs to it
            prepared += 1
    assert 0 < prepared < len(died)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_as_long_as_it_is_not_in_the_log_the_old_key_goes_on(tmp_path: Path, kind: str) -> None:
    folder, note, key, _ = begin(tmp_path, kind)
    alone = Note(note.text, note.signatures[:1])
    assert store.settle(folder, ORIGIN, alone).verifier_key != key
    prepared = store.prepared(folder, ORIGIN)
    assert prepared is not None
    assert prepared.verifier_key == key


def test_a_later_checkpoint_by_the_next_key_alone_completes_the_change(tmp_path: Path) -> None:
    folder, note, key, secret = begin(tmp_path, "file to file")
    check_changed(folder, Note(note.text, note.signatures[1:]), key, secret)


def test_a_next_key_that_is_gone_or_cannot_be_read(tmp_path: Path) -> None:
    folder, note, key, _ = begin(tmp_path, "file to file")
    (folder / "next-key.pem").chmod(0o644)
    alone = Note(note.text, note.signatures[:1])
    assert store.settle(folder, ORIGIN, alone).verifier_key != key
    with pytest.raises(KeyFileError, match="chmod 600"):
        store.settle(folder, ORIGIN, note)  # its time has come, and going on with the old one would be a lie
    (folder / "next-key.pem").unlink()
    with pytest.raises(KeyFileError, match="is not signed with the key") as error:
        store.settle(folder, ORIGIN, note)
    assert key.key_id.hex() in error.value.what


def test_a_change_that_was_given_up_does_not_destroy_the_current_key(tmp_path: Path) -> None:
    folder, note, key, _ = begin(tmp_path, "file to file")
    os.link(folder / "key.pem", folder / "old-key.pem")  # as far as complete() came
    (folder / "next-key.pem").unlink()
    alone = Note(note.text, note.signatures[:1])
    before = (folder / "key.pem").read_bytes()
    assert store.settle(folder, ORIGIN, alone).verifier_key != key
    assert (folder / "key.pem").read_bytes() == before
    assert not (folder / "old-key.pem").exists()


def test_a_disk_that_refuses_leaves_the_change_to_be_completed_later(tmp_path: Path) -> None:
    directory, keys = rotating_log(tmp_path / "log", 0)
    key = store.prepare(directory.path, directory.origin)
    sequencer = Sequencer.acquire(directory)
    assert sequencer is not None
    (directory.path / "log.vkey").unlink()
    (directory.path / "log.vkey").mkdir()  # cannot be replaced by a file
    (directory.path / "log.vkey" / "x").touch()
    with pytest.raises(KeyFileError, match="could not be changed"):
        sequencer.change_key()
    record(directory)
    assert sequencer.integrate() == 1, "signs with the next key"
    with pytest.raises(KeyFileError, match="could not be changed"):
        sequencer.change_key()
    shutil.rmtree(directory.path / "log.vkey")
    assert sequencer.change_key()
    sequencer.close()
    record(directory)
    sequence(directory)
    assert store.current(directory.path, directory.origin).verifier_key == key
    ring = KeyRing(directory.origin, keys)
    assert feed(ring, directory) == []
    assert [found for _, found in ring.chain] == [*keys, key]


# -- in a running process --------------------------------------------------------------------------------------------
def test_a_process_changes_its_key_while_it_records(log_folder: Path) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    log = AuditLog(log_folder)
    provider.add_span_processor(AuditSpanProcessor(log))
    tracer = provider.get_tracer("test")
    path, origin = log.directory.path, log.directory.origin
    tracer.start_span("first", attributes=audit_attributes()).end()
    for _ in range(200):  # the process becomes the sequencer
        if log.directory.key.exists():
            break
        threading.Event().wait(0.05)
    keys = [store.current(path, origin).verifier_key]
    for number in range(3):
        keys.append(store.prepare(path, origin))
        for _ in range(50):
            tracer.start_span(f"record {number}", attributes=audit_attributes()).end()
        assert provider.force_flush(10_000)
        for _ in range(100):
            if Places.of(path).next is None:
                break
            threading.Event().wait(0.05)
    provider.shutdown()
    ring = KeyRing(origin, keys[1:2])
    assert feed(ring, log.directory) == []
    assert [key for _, key in ring.chain] == keys
    assert ring.trust == "pinned"


def test_a_next_key_that_cannot_be_used_does_not_hold_up_records(log_folder: Path) -> None:
    directory, keys = rotating_log(log_folder, 0)
    store.prepare(directory.path, directory.origin)
    (directory.path / "next-key.pem").chmod(0o644)
    record(directory, 2)
    sequencer = Sequencer.acquire(directory)
    assert sequencer is not None
    size = sequencer.size
    assert sequencer.integrate() == 2
    with pytest.raises(AuditspanError, match="chmod 600"):
        sequencer.change_key()
    assert sequencer.size == size + 2
    (directory.path / "next-key.pem").chmod(0o600)
    assert sequencer.change_key()
    sequencer.close()
    assert feed(KeyRing(directory.origin, keys), directory) == []
