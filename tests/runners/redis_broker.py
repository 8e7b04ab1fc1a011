# SPDX-License-Identifier: Apache-2.0
"""A real Redis for tests, wherever one can be had: given, installed, in Docker, or unpacked from Debian's packages."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from auditspan.devstack.docker import engine_version
from tests.environments import ROOT

GIVEN = "AUDITSPAN_TEST_REDIS_URL"
"""Names a Redis that may be used, for example ``redis://127.0.0.1:6379/9``: its database is for the tests alone."""

_IMAGE = "redis:7-alpine"
_FOLDER = ROOT / ".cache" / "redis"
_PACKAGES = ("redis-server", "redis-tools")


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Have a Redis running inside the ``with`` block.

    Args:
        folder: for its log.

    Returns:
        its URL.

    Raises:
        RuntimeError: there is none to be had; the message says what was tried, and what to do.
    """
    if given := os.environ.get(GIVEN):
        yield given
        return
    tried = []
    for way in (_installed, _in_docker, _unpacked):
        try:
            stop, port = way(folder)
        except (OSError, subprocess.SubprocessError, RuntimeError) as error:
            tried.append(f"  {way.__name__.strip('_')}: {error}")
            continue
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            stop()
        return
    advice = f"Install redis-server, or set {GIVEN} to the URL of one."
    raise RuntimeError("\n".join(["There is no Redis for the tests:", *tried, advice]))


Started = tuple[Callable[[], object], int]


def _installed(folder: Path) -> Started:
    server = shutil.which("redis-server")
    if server is None:
        raise RuntimeError("there is no redis-server on PATH")
    return _serve(server, folder, os.environ)


def _in_docker(folder: Path) -> Started:
    if not engine_version():
        raise RuntimeError("no Docker engine answers")
    name, port = f"auditspan-redis-{uuid.uuid4().hex[:8]}", free_port()
    _run(["docker", "run", "--detach", "--rm", "--name", name, "--publish", f"127.0.0.1:{port}:6379", _IMAGE])
    stop = lambda: _run(["docker", "rm", "--force", "--volumes", name])  # noqa: E731
    try:
        _wait_for(port)
    except BaseException:
        stop()
        raise
    return stop, port


def _unpacked(folder: Path) -> Started:
    """Start what Debian's packages hold: fetched by apt-get and unpacked into `.cache`, which needs no rights."""
    root = _FOLDER / "root"
    if not (root / ".complete").exists():
        if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            raise RuntimeError("this is no Debian")
        shutil.rmtree(_FOLDER, ignore_errors=True)
        _FOLDER.mkdir(parents=True)
        packages = [*_PACKAGES, *_libraries_of(_PACKAGES)]
        try:
            _run(["apt-get", "download", *packages], _FOLDER)
        except RuntimeError:  # the lists of packages may be missing or old
            _run(["apt-get", "update"], _FOLDER)
            packages = [*_PACKAGES, *_libraries_of(_PACKAGES)]
            _run(["apt-get", "download", *packages], _FOLDER)
        for package in _FOLDER.glob("*.deb"):
            _run(["dpkg", "-x", str(package), str(root)])
        (root / ".complete").touch()
    folders = sorted({str(file.parent) for file in root.rglob("*.so*")})
    return _serve(
        str(root / "usr/bin/redis-server"), folder, os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(folders)}
    )


def _libraries_of(packages: tuple[str, ...]) -> list[str]:
    """Name the libraries that packages need and that are not installed."""
    said = subprocess.run(["apt-cache", "depends", *packages], capture_output=True, text=True, check=False).stdout
    needed = {line.split()[-1] for line in said.splitlines() if line.strip().startswith("Depends: l")}
    return sorted(name for name in needed if name.startswith(("lib", "lua")) and not _is_installed(name))


def _is_installed(package: str) -> bool:
    shown = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Status}", package], capture_output=True, text=True, check=False
    )
    return "install ok installed" in shown.stdout


def _serve(server: str, folder: Path, environment: Mapping[str, str]) -> Started:
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "redis.log", "wb") as log:
        process = subprocess.Popen(
            [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
            env=dict(environment), stdout=log, stderr=log,
        )  # fmt: skip

    def stop() -> None:
        process.terminate()
        process.wait(20)

    try:
        _wait_for(port, process, folder / "redis.log")
    except BaseException:
        process.kill()
        process.wait(20)
        raise
    return stop, port


def _wait_for(port: int, process: subprocess.Popen[bytes] | None = None, log: Path | None = None) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode}: {log.read_text()[-500:] if log else ''}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"PING\r\n")
            if connection.recv(16).startswith(b"+PONG"):
                return
        time.sleep(0.1)
    raise RuntimeError("it does not answer")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _run(command: list[str], folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()[-300:]}")
