"""A private Kafka broker that is its own controller (KRaft, one node), with a listener for every kind of client."""

from __future__ import annotations

import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.testing.kafka import client
from engine.testing.kafka.certificates import Certificates, make_certificates
from engine.testing.kafka.jvm import QUICK_START, JavaProgram, java_command, running, write_properties
from engine.testing.postgres import free_port

CLUSTER_ID = "Y29uY29yZC10ZXN0LWthZg"
USER = "concord"
PASSWORD = "user-secret"
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
HEAP = ("-Xms128m", "-Xmx384m")
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    # One node has one replica of everything, and the topics of its own as few partitions as can be.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    # A group of one member needs not wait for others.
    "group.initial.rebalance.delay.ms": "0",
    # Privileges are those of the access list where a resource has any; who comes without a name may do everything.
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
    "super.users": "User:ANONYMOUS",
    "ssl.keystore.type": "PEM",
    "ssl.truststore.type": "PEM",
    "listener.name.mutual.ssl.client.auth": "required",
    "log.retention.check.interval.ms": "1000",
    "log.cleaner.backoff.ms": "500",
    "log.segment.delete.delay.ms": "500",
}
# Kafka's name of the listener, and what is spoken there.
LISTENERS = {
    "PLAINTEXT": "PLAINTEXT",
    "PROXIED": "PLAINTEXT",
    "SASL": "SASL_PLAINTEXT",
    "TLS": "SSL",
    "MUTUAL": "SSL",
    "SASLTLS": "SASL_SSL",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaBroker:
    """Where a running broker listens, on 127.0.0.1, and what its clients need.

    `ports` by name of the listener, see LISTENERS: SASL and SASLTLS ask for `USER` with `PASSWORD` by a mechanism of
    `SCRAM` or by PLAIN, MUTUAL for a client's certificate. The one who comes by PLAINTEXT may do everything. PROXIED is
    for a proxy that cuts: the broker tells who comes there that it lives at `proxy_port`, where the test listens.
    """

    ports: Mapping[str, int]
    proxy_port: int
    certificates: Certificates

    @property
    def bootstrap(self) -> str:
        return self.address("PLAINTEXT")

    def address(self, listener: str) -> str:
        return f"127.0.0.1:{self.ports[listener]}"

    def create_topic(self, name: str, *, partitions: int = 1, settings: Mapping[str, str] | None = None) -> None:
        client.create_topic(self.bootstrap, name, partitions=partitions, settings=settings or {})


@contextmanager
def start_broker(
    directory: Path,
    settings: Mapping[str, str] | None = None,
    *,
    ports: Mapping[str, int] | None = None,
    java_options: Sequence[str] = (*QUICK_START, *HEAP),
) -> Generator[tuple[KafkaBroker, JavaProgram]]:
    """Run a broker on `directory`, formatted unless it has been; stop it on leaving.

    `settings` are the broker's own and come before ours. With the `ports` of an earlier life on the same directory its
    clients find it again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    chosen = dict(ports) if ports else {name: free_port() for name in (*LISTENERS, "CONTROLLER")}
    # What nobody listens at yet may be handed out again; then the proxy cannot listen and says so.
    proxy_port = chosen.setdefault("PROXY", free_port())
    certificates = make_certificates(directory / "certificates")
    path = directory / "server.properties"
    own = {"log.dirs": str(directory / "log"), **_listener_settings(chosen, certificates)}
    write_properties(path, {**SETTINGS, **own, **(settings or {})})
    if not (directory / "log" / "meta.properties").exists():
        _format(path, directory, java_options)
    command = java_command("kafka.Kafka", str(path), options=java_options)
    broker = KafkaBroker(ports=chosen, proxy_port=proxy_port, certificates=certificates)
    with running("broker", command, directory) as program:
        program.wait_until(lambda: client.is_answering(broker.bootstrap), "answering its clients")
        yield broker, program


def _listener_settings(ports: Mapping[str, int], certificates: Certificates) -> dict[str, str]:
    spoken = {**LISTENERS, "CONTROLLER": "PLAINTEXT"}
    advertised = {**ports, "PROXIED": ports["PROXY"]}
    settings = {
        "controller.quorum.voters": f"1@127.0.0.1:{ports['CONTROLLER']}",
        "listeners": ",".join(f"{name}://127.0.0.1:{ports[name]}" for name in spoken),
        "advertised.listeners": ",".join(f"{name}://127.0.0.1:{advertised[name]}" for name in LISTENERS),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in spoken.items()),
        "ssl.keystore.location": str(certificates.server_store),
        "ssl.truststore.location": str(certificates.authority),
    }
    for name in ("sasl", "sasltls"):
        settings[f"listener.name.{name}.sasl.enabled.mechanisms"] = ",".join((*SCRAM, "PLAIN"))
        for mechanism in SCRAM:
            module = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            settings[f"listener.name.{name}.{mechanism.lower()}.sasl.jaas.config"] = module
        plain = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        settings[f"listener.name.{name}.plain.sasl.jaas.config"] = plain
    return settings


def _format(properties: Path, directory: Path, java_options: Sequence[str]) -> None:
    """Make the broker's storage, with `USER` known to each mechanism of SCRAM."""
    users = [
        part
        for mechanism in SCRAM
        for part in ("--add-scram", f"{mechanism}=[name={USER},iterations=4096,password={PASSWORD}]")
    ]
    arguments = ("format", "-t", CLUSTER_ID, "-c", str(properties), *users)
    command = java_command("kafka.tools.StorageTool", *arguments, options=java_options)
    made = subprocess.run(command, capture_output=True, cwd=directory, text=True)
    if made.returncode:
        raise RuntimeError(f"Kafka's storage could not be made: {(made.stdout + made.stderr)[-3000:]}")
