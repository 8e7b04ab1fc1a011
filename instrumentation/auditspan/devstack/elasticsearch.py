# SPDX-License-Identifier: Apache-2.0
"""Elasticsearch by its Maven coordinates, and the index templates for any Elasticsearch."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
import zipfile
from pathlib import Path

from auditspan.devstack import system
from auditspan.devstack.errors import DevStackError
from auditspan.devstack.security import Security
from auditspan_seal.errors import SourceError

VERSION = "9.5.0"
OLDEST = "8.19.7"
"""The oldest version that auditspan works with."""
_MINIMUM_JAVA = {8: 17, 9: 21}  # by major version of Elasticsearch
_ARTIFACT = "org.elasticsearch.distribution.integ-test-zip:elasticsearch"
# Has a built-in template for OpenTelemetry traces: a full distribution. The minimal one has none.
_BUILT_IN_TEMPLATE = "/_index_template/traces-otel@template"


def health_url(url: str) -> str:
    """Return what answers when Elasticsearch is ready. (``GET /`` is no test: the minimal distribution lacks it.)"""
    return f"{url.rstrip('/')}/_cluster/health?wait_for_status=yellow&timeout=2s"


class ElasticsearchProcess:
    """An Elasticsearch that runs as a child process, as another user if we are root."""

    def __init__(
        self,
        directory: Path,
        port: int,
        detached: bool,
        version: str = VERSION,
        security: Security | None = None,
        heap: str = "1g",
    ) -> None:
        """Download and unpack it unless the cache has it; start nothing yet.

        Args:
            directory: gets data and log.
            port: where it listens.
            detached: leave it running when this process ends.
            version: which.
            security: its users, roles and TLS; None: security is off.
            heap: of its Java, as ``-Xmx`` wants it.
        """
        self._security = security
        self._heap = heap
        self._java = _find_java(version)
        self._user = _unprivileged_user()
        self._home = _unpack(version, self._user)
        self._port = port
        self._transport_port = system.free_ports(1)[0]
        self._detached = detached
        self._log = directory / "elasticsearch.log"
        self._link = directory / "elasticsearch"
        self._folder = self._prepare()
        self._process: subprocess.Popen[bytes] | None = None
        self.description = f"{version} from Maven coordinates"

    def start(self) -> None:
        """Start it and wait until it answers."""
        if self._process is not None:
            return
        system.require_free(self._port)
        options = {
            "cluster.name": "auditspan-devstack",
            "discovery.type": "single-node",
            "http.port": self._port,
            "network.host": "127.0.0.1",
            "path.data": self._folder / "data",
            "path.logs": self._folder / "logs",
            "path.repo": self._folder / "snapshots",
            "transport.port": self._transport_port,
            **({"xpack.security.enabled": "false"} if self._security is None else self._security.options()),
        }
        self._process = system.spawn(
            [str(self._home / "bin" / "elasticsearch"), *(f"-E{name}={value}" for name, value in options.items())],
            self._environment(),
            self._folder,
            self._log,
            self._detached,
            self._user,
        )
        try:
            answers = system.answers if self._security is None else self._security.answers
            system.wait_for("Elasticsearch", health_url(self.url), self._process, self._log, 180, answers)
        except DevStackError:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"{'http' if self._security is None else self._security.scheme}://127.0.0.1:{self._port}"

    def stop(self) -> None:
        """Stop it; its data stays."""
        process, self._process = self._process, None
        if process is not None:
            system.end(process, 60)

    def close(self) -> None:
        """Stop it for good; remove its data if that had to lie outside the given directory."""
        self.stop()
        if self._link.is_symlink():
            self._link.unlink()
            shutil.rmtree(self._folder, ignore_errors=True)

    def state(self) -> dict[str, object]:
        """Return its process id and when it started."""
        if self._process is None:
            return {}
        return {"pid": self._process.pid, "started": system.started_at(self._process.pid)}

    def _prepare(self) -> Path:
        folder = self._link
        if self._user is None:
            folder.mkdir(exist_ok=True)
        else:
            folder = system.folder_for_user(folder, self._user)
        shutil.copytree(self._home / "config", folder / "config", dirs_exist_ok=True)
        if self._security is not None:
            self._security.write(folder / "config")
        for name in ("data", "logs", "snapshots", "tmp"):
            (folder / name).mkdir(exist_ok=True)
        if self._user is not None:
            for item in (folder, *folder.rglob("*")):
                os.chown(item, self._user, -1)
        return folder

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._folder),
            "ES_JAVA_HOME": str(self._java),
            "ES_PATH_CONF": str(self._folder / "config"),
            "ES_TMPDIR": str(self._folder / "tmp"),
            "ES_JAVA_OPTS": f"-Xms{self._heap} -Xmx{self._heap}",
        }


def install_templates(url: str) -> None:
    """Install the index templates of ``collector-config/elasticsearch``, as ``auditspan backend setup`` does it.

    Args:
        url: URL of the Elasticsearch; may hold user name and password.

    Raises:
        DevStackError: Elasticsearch refuses.
    """
    from auditspan.backend_setup import apply, plan
    from auditspan.backend_setup.artefacts import Wanted, load
    from auditspan.backend_setup.server import Server

    folder = system.configuration_folder() / "elasticsearch"
    try:
        with Server.of_environment(url) as server:
            bare = server.get(_BUILT_IN_TEMPLATE) is None
            artefacts = load(folder, Wanted(development=bare))
            # A development server may have templates of any other state of the source: they are replaced.
            made = plan.make(server, artefacts, [item.name for item in artefacts])
            apply.apply(server, made)
            for step in made.refused:
                raise SourceError(f"{step.why}.", step.advice)
    except SourceError as error:
        raise DevStackError(
            f"Elasticsearch at {url.rpartition('@')[2]} does not take the index templates: {error.what}",
            "Without them audit spans are refused or mapped wrongly.",
            "Look whether it is Elasticsearch 8.19 or newer and lets you manage index templates.",
        ) from None


def _unprivileged_user() -> int | None:
    """Return the user id to run as, or None for our own. Elasticsearch refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("elasticsearch", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise DevStackError(
        "Elasticsearch does not run as root, and there is neither a user `elasticsearch` nor `nobody`.",
        "It needs a user without privileges.",
        "Run `useradd --system elasticsearch`, or run this as an ordinary user.",
    )


def _find_java(version: str) -> Path:
    """Return the home of a Java that is new enough for a version, the newest if there are several."""
    minimum = _MINIMUM_JAVA.get(int(version.partition(".")[0]), max(_MINIMUM_JAVA.values()))
    homes = [Path(value) for name in ("ES_JAVA_HOME", "JAVA_HOME") if (value := os.environ.get(name))]
    homes += sorted(Path("/usr/lib/jvm").glob("*"))
    if (found := shutil.which("java")) is not None:
        homes.append(Path(found).resolve().parents[1])
    versions = {home: number for home in homes if (number := _java_version(home)) is not None}
    suitable = {home: number for home, number in versions.items() if number >= minimum}
    if not suitable:
        seen = ", ".join(f"{home} ({number})" for home, number in versions.items()) or "none"
        raise DevStackError(
            f"No Java {minimum} or newer was found (found: {seen}).",
            f"Elasticsearch {version} needs it.",
            "Install a JDK and set JAVA_HOME, or set AUDITSPAN_ELASTICSEARCH_URL to a running Elasticsearch.",
        )
    return max(suitable, key=lambda home: suitable[home])


def _java_version(home: Path) -> int | None:
    program = home / "bin" / "java"
    if not os.access(program, os.X_OK):
        return None
    answer = subprocess.run([str(program), "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(\d+)', answer.stderr)
    return int(found.group(1)) if found else None


def _unpack(version: str, user: int | None) -> Path:
    """Return the folder of the unpacked distribution, which ``user`` can read."""
    cache = system.cache_folder()
    # The home of root is closed to others, and Elasticsearch runs as another user then.
    place = cache if user is None else Path("/var/cache/auditspan/devstack")
    place.mkdir(parents=True, exist_ok=True)
    home = place / f"elasticsearch-{version}"
    with system.exclusively(cache):
        if not home.exists():
            archive = _download(version, cache)
            system.say(f"unpacking {archive.name} …")
            with tempfile.TemporaryDirectory(dir=place) as folder:
                _extract(archive, Path(folder))
                (Path(folder) / home.name).rename(home)
    return home


def _download(version: str, cache: Path) -> Path:
    archive = cache / f"elasticsearch-{version}.zip"
    if not archive.exists():
        if shutil.which("mvn") is None:
            raise DevStackError(
                "There is no Elasticsearch: AUDITSPAN_ELASTICSEARCH_URL is not set, no Docker engine answers, "
                "`mvn` is missing.",
                "Elasticsearch can be used, pulled as an image or fetched by Maven, and none of the three is possible.",
                "Install Maven, or start a Docker engine, or name a running Elasticsearch by that variable.",
            )
        copy = ["dependency:copy", f"-Dartifact={_ARTIFACT}:{version}:zip", f"-DoutputDirectory={cache}"]
        system.run(
            f"fetching Elasticsearch {version} with mvn (about 130 MB)",
            ["mvn", "--batch-mode", "--quiet", *copy],
            cache / "mvn.log",
            cache,
        )
    return archive


def _extract(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        for item in content.infolist():
            target = Path(content.extract(item, folder))
            # zipfile leaves out the permissions; programs need their x, and another user must be able to read all.
            mode = stat.S_IMODE(item.external_attr >> 16)
            target.chmod(mode | (0o755 if target.is_dir() else 0o644))
