# SPDX-License-Identifier: Apache-2.0
"""A real Kafka broker of one node, by its Maven coordinates: client certificates, and rights for each name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from auditspan.devstack import system
from tests.seal.certificates import Certificates, make_certificates

VERSION = "4.1.2"
TOPIC, GROUP = "auditspan-records", "auditspan-gateway"
OPERATOR, BROKER, AGENT, GATEWAY = "operator", "broker", "agent", "gateway"
PARTITIONS = 2
LARGEST = 37748736
"""Bytes of a message at most, as kafka-agent.yaml asks it of the topic."""

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>auditspan.invalid</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{VERSION}</version>
      <exclusions>
        <exclusion><groupId>org.apache.kafka</groupId><artifactId>connect-runtime</artifactId></exclusion>
        <exclusion><groupId>org.apache.kafka</groupId><artifactId>connect-json</artifactId></exclusion>
      </exclusions>
    </dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.3</version></dependency>
  </dependencies>
</project>
"""
_LOGGING = """
appender.out.type=Console
appender.out.name=OUT
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c: %m%n
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=OUT
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=INFO
logger.denied.name=kafka.authorizer.logger
logger.denied.level=INFO
"""
_STARTED = "Kafka Server started"


def libraries() -> Path:
    """Return the folder with the broker and all it needs; fetch them unless the cache has them."""
    cache = system.cache_folder() / "kafka"
    cache.mkdir(exist_ok=True)
    folder = cache / hashlib.sha256(_POM.encode()).hexdigest()[:16]
    with system.exclusively(cache):
        if not folder.exists():
            unfinished = cache / "unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            (unfinished / "pom.xml").write_text(_POM)
            system.run(
                f"fetching Kafka {VERSION} with mvn (about 45 MB)",
                [
                    "mvn", "--batch-mode", "--quiet", "-f", str(unfinished / "pom.xml"),
                    "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={unfinished}",
                ],
                cache / "mvn.log", cache,
            )  # fmt: skip
            unfinished.rename(folder)
    return folder


class Broker:
    """A broker with the topic of kafka-agent.yaml.

    The agent may write to it, the gateway may read it, and neither can do what the other does; somebody without a
    certificate of the authority can do nothing.

    Args:
        folder: gets its data, certificates and log.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port, self._controller = system.free_ports(2)
        self.certificates: Certificates = make_certificates(folder / "certificates", OPERATOR, BROKER, AGENT, GATEWAY)
        self.log = folder / "broker.log"
        self._libraries = libraries()
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "log4j2.properties").write_text(_LOGGING)
        self._settings = folder / "server.properties"
        self._settings.write_text(self._server())
        (folder / "operator.properties").write_text("\n".join(["security.protocol=SSL", *self._tls(OPERATOR)]))
        self._tool("kafka.tools.StorageTool", "format", "-t", "YXVkaXRzcGFuLWthZmthMQ", "-c", str(self._settings))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it serves."""
        begin = self.log.stat().st_size if self.log.exists() else 0
        command = [*self._java("384m"), "kafka.Kafka", str(self._settings)]
        self._process = system.spawn(command, os.environ, self.folder, self.log, detached=False)

        def started(_: str) -> bool:
            with self.log.open("rb") as lines:
                lines.seek(begin)
                return _STARTED in lines.read().decode(errors="replace")

        system.wait_for("Kafka", self.address, self._process, self.log, 60, started)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            system.end(process, 5)

    def set_up(self) -> None:
        """Make the topic, and give the rights, as an operator does it."""
        topic = [
            "--create", "--topic", TOPIC, "--partitions", str(PARTITIONS), "--replication-factor", "1",
            "--config", f"max.message.bytes={LARGEST}", "--config", "cleanup.policy=delete",
        ]  # fmt: skip
        tasks: list[tuple[str, Sequence[str]]] = [
            ("org.apache.kafka.tools.TopicCommand", topic),
            ("org.apache.kafka.tools.AclCommand", ["--add", *may_write(AGENT)]),
            ("org.apache.kafka.tools.AclCommand", ["--add", *may_read(GATEWAY)]),
        ]
        with ThreadPoolExecutor(len(tasks)) as pool:
            list(pool.map(lambda task: self.operate(task[0], *task[1]), tasks))

    def skip(self, partition: int, offset: int) -> str:
        """Have the gateways begin after a message; they must be stopped."""
        return self.operate(
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--group", GROUP, "--reset-offsets",
            "--topic", f"{TOPIC}:{partition}", "--to-offset", str(offset + 1), "--execute",
        )  # fmt: skip

    def forget(self) -> None:
        """Delete all messages, as the retention does it in its time."""
        everything = {"partitions": [{"topic": TOPIC, "partition": n, "offset": -1} for n in range(PARTITIONS)]}
        offsets = self.folder / "offsets.json"
        offsets.write_text(json.dumps({**everything, "version": 1}))
        self.operate("org.apache.kafka.tools.DeleteRecordsCommand", "--offset-json-file", str(offsets))

    def operate(self, tool: str, *arguments: str) -> str:
        """Do something with one of Kafka's own tools (a Java class), as the operator."""
        account = ["--bootstrap-server", self.address, "--command-config", str(self.folder / "operator.properties")]
        return self._tool(tool, *account, *arguments)

    def _tool(self, tool: str, *arguments: str) -> str:
        done = subprocess.run([*self._java("96m"), tool, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{tool} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def _java(self, heap: str) -> list[str]:
        return [
            "java", f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}", "-cp", f"{self._libraries}/*",
        ]  # fmt: skip

    def _tls(self, name: str) -> list[str]:
        certificate, key = self.certificates.peers[name]
        both = self.folder / f"{name}-both.pem"
        both.write_text(key.read_text() + certificate.read_text())
        return [
            "ssl.keystore.type=PEM", f"ssl.keystore.location={both}",
            "ssl.truststore.type=PEM", f"ssl.truststore.location={self.certificates.authority}",
        ]  # fmt: skip

    def _server(self) -> str:
        return "\n".join(
            [
                "process.roles=broker,controller", "node.id=1",
                f"controller.quorum.voters=1@127.0.0.1:{self._controller}",
                f"listeners=SSL://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller}",
                "listener.security.protocol.map=SSL:SSL,CONTROLLER:PLAINTEXT",
                "controller.listener.names=CONTROLLER", "inter.broker.listener.name=SSL",
                *self._tls(BROKER), "ssl.client.auth=required",
                "ssl.principal.mapping.rules=RULE:^CN=([^,]+)$/$1/,DEFAULT",
                "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                # Without a name is who comes by the other listener: the broker to its controller, both this process.
                f"super.users=User:{BROKER};User:{OPERATOR};User:ANONYMOUS",
                f"log.dirs={self.folder / 'data'}", "auto.create.topics.enable=false",
                "offsets.topic.replication.factor=1", "offsets.topic.num.partitions=1",
                "transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1",
                "group.initial.rebalance.delay.ms=0",
                # Else it waits 9 s after a kill, until it no longer believes that it is there already.
                "broker.session.timeout.ms=1500", "broker.heartbeat.interval.ms=300",
                "log.cleaner.dedupe.buffer.size=4194304",
                "num.network.threads=1", "num.io.threads=2", "background.threads=2",
            ]
        )  # fmt: skip


def may_write(who: str) -> list[str]:
    """The rights of an agent, in the words of Kafka's tool: to write to the topic, and to learn of it."""
    return ["--allow-principal", f"User:{who}", "--topic", TOPIC, "--operation", "Write", "--operation", "Describe"]


def may_read(who: str) -> list[str]:
    """The rights of a gateway: to read the topic, and to keep its place in it."""
    return ["--allow-principal", f"User:{who}", "--topic", TOPIC, "--group", GROUP, "--operation", "Read"]
