# SPDX-License-Identifier: Apache-2.0
"""Processes, ports, folders and progress: what all parts need from the operating system."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import http.client
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from auditspan.devstack.errors import DevStackError

_PR_SET_PDEATHSIG = 1
_TICK = 15.0
_PORTS = range(20_000, 32_000)


class Part(Protocol):
    """One of the two services."""

    description: str

    def start(self) -> None:
        """Start it and wait until it answers."""

    def stop(self) -> None:
        """Stop it; ports, data and queue stay for the next start."""

    def close(self) -> None:
        """Stop it for good and remove what only it needed."""

    def state(self) -> dict[str, object]:
        """Return what ``down`` needs to end it from another process."""


def say(text: str) -> None:
    """Tell the person at the terminal, on stderr."""
    print(f"devstack: {text}", file=sys.stderr, flush=True)


def cache_folder() -> Path:
    """Return (and create) the folder that keeps built and downloaded parts."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "auditspan" / "devstack"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DevStackError(
            f"The cache folder {folder} cannot be created: {error.strerror}.",
            "Built and downloaded parts have no place to be kept.",
            "Set XDG_CACHE_HOME to a folder that can be written.",
        ) from None
    return folder


@contextlib.contextmanager
def exclusively(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, so that two test sessions do not build the same part at once."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def configuration_folder() -> Path:
    """Return ``collector-config``: that of the source checkout, or the installed copy."""
    installed = Path(sysconfig.get_path("data")) / "share" / "auditspan"
    for base in (*Path(__file__).resolve().parents, installed):
        folder = base / "collector-config"
        if (folder / "collector.yaml").is_file():
            return folder
    raise DevStackError(
        "The folder collector-config was not found.",
        f"It is neither in a source checkout around {__file__} nor in {installed}.",
        "Install auditspan from its wheel or work in a source checkout.",
    )


def free_ports(count: int) -> list[int]:
    """Return loopback ports that nobody listens on now.

    They lie below the range from which systems take ports for outgoing connections: a service that is stopped for a
    while must find its port free again, and whoever keeps calling a stopped one must not end up connected to itself.
    """
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found


def require_free(port: int) -> None:
    """Raise an error if something listens on a loopback port."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            return
    raise DevStackError(
        f"Port {port} is in use.",
        "Another service listens there, perhaps an earlier stack.",
        "Run `python -m auditspan.devstack down`, or end that service.",
    )


def run(label: str, command: Sequence[str], log: Path, cwd: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a long step to its end; say now and then that it still runs.

    Args:
        label: what it does, for the person waiting.
        command: program and arguments.
        log: file that gets its output.
        cwd: folder to run it in.
        environment: variables added to the current ones.

    Raises:
        DevStackError: the program is missing or failed.
    """
    say(f"{label} …")
    began = last = time.monotonic()
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command, cwd=cwd, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**os.environ, **(environment or {})}, preexec_fn=_die_with_parent(),
            )  # fmt: skip
        except OSError as error:
            raise DevStackError(
                f"`{command[0]}` cannot be run: {error.strerror}.",
                f"It is needed for: {label}.",
                f"Install `{command[0]}`, or name a running service by environment variable.",
            ) from None
        while process.poll() is None:
            time.sleep(0.1)
            if time.monotonic() - last >= _TICK:
                last = time.monotonic()
                say(f"{label}: {last - began:.0f} s so far …")
    if process.returncode:
        raise DevStackError(
            f"`{' '.join(command[:3])} …` failed with exit code {process.returncode}.",
            f"Its last lines (all of them: {log}):\n{tail(log)}",
            "Mend the cause and try again, or name a running service by environment variable.",
        )
    say(f"{label}: done in {time.monotonic() - began:.0f} s")


def spawn(
    command: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path,
    log: Path,
    detached: bool,
    user: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a service in the background.

    Args:
        command: program and arguments.
        environment: its whole environment.
        cwd: folder to run it in.
        log: file that its output is added to.
        detached: leave it running when this process ends.
        user: run it as the user with this id.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            command, cwd=cwd, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            # A session of its own: Ctrl-C at the terminal then reaches only us, and we end the parts in order.
            start_new_session=True, preexec_fn=None if detached else _die_with_parent(),
            user=user,
            group=None if user is None else pwd.getpwuid(user).pw_gid,
            extra_groups=None if user is None else [],
        )  # fmt: skip


def _die_with_parent() -> Callable[[], None] | None:
    """Return a function that asks Linux to end the child when we are killed and cannot do it ourselves."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)  # loaded before the fork: loading is not safe after it
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """End a process: SIGTERM, and SIGKILL when that does not help in time.

    Returns:
        whether it ended by itself.
    """
    if process.poll() is not None:
        return True
    process.terminate()
    deadline = time.monotonic() + seconds
    # The whole group: Elasticsearch is a launcher and a server, and the launcher may be gone first.
    while process.poll() is None or _group_lives(process.pid):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return False
        time.sleep(0.05)
    return True


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def answers(url: str) -> bool:
    """Return whether an HTTP GET is answered with success."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310
            return bool(response.status < 300)
    except (OSError, http.client.HTTPException, ValueError):
        return False


def wait_for(
    label: str,
    url: str,
    process: subprocess.Popen[bytes] | None,
    log: Path,
    seconds: float,
    ready: Callable[[str], bool] = answers,
) -> None:
    """Wait until a service answers; `ready` says whether it does.

    Raises:
        DevStackError: it ended, or did not answer in time.
    """
    began = last = time.monotonic()
    while not ready(url):
        now = time.monotonic()
        if process is not None and process.poll() is not None:
            raise DevStackError(
                f"{label} ended right after its start, with exit code {process.returncode}.",
                f"Its last lines (all of them: {log}):\n{tail(log)}",
                "Mend the cause named there and try again.",
            )
        if now - began > seconds:
            raise DevStackError(
                f"{label} does not answer at {url} after {seconds:.0f} s.",
                f"Its last lines (all of them: {log}):\n{tail(log)}",
                "Look whether the machine is out of memory or processor time.",
            )
        if now - last >= _TICK:
            last = now
            say(f"waiting for {label}: {now - began:.0f} s so far …")
        time.sleep(0.2)


def tail(log: Path, lines: int = 12) -> str:
    """Return the last lines of a log file, indented."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return "    (no output)"
    return "\n".join(f"    {line[:400]}" for line in text.splitlines()[-lines:]) or "    (no output)"


def started_at(pid: int) -> str:
    """Return when a process started, to tell it from a later one with the same number; empty if it is not running."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except OSError:
        pass
    found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def folder_for_user(folder: Path, user: int) -> Path:
    """Return a folder that another user owns and can reach.

    Folders of root and of pytest are often closed to others (mode 0700). Then the real folder is made elsewhere and
    ``folder`` becomes a link to it.
    """
    if folder.is_symlink():
        return folder.resolve()
    real = folder
    if not all(parent.stat().st_mode & 0o001 for parent in folder.resolve().parents if parent.exists()):
        real = Path(tempfile.mkdtemp(prefix="auditspan-devstack-"))
        folder.symlink_to(real, target_is_directory=True)
    real.mkdir(parents=True, exist_ok=True)
    os.chown(real, user, -1)
    return real
