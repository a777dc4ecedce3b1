"""A certificate authority of one's own with a server's and a client's certificate, by the program openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

DAYS = "2"
PASSWORD = "key-secret"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Files in PEM. `server_store` is the server's key and certificate in one file, as Kafka reads it; `client_key` is
    encrypted with `PASSWORD`, `client_key_plain` is not."""

    authority: Path
    stranger: Path
    """Another authority, which has signed nothing here."""
    server_store: Path
    client_certificate: Path
    client_key: Path
    client_key_plain: Path


def make_certificates(directory: Path) -> Certificates:
    """Make them in `directory` unless they are there. The server is localhost and 127.0.0.1; the client's name is
    CN=client."""
    made = Certificates(
        authority=directory / "ca.pem",
        stranger=directory / "stranger.pem",
        server_store=directory / "server-store.pem",
        client_certificate=directory / "client.pem",
        client_key=directory / "client-key.pem",
        client_key_plain=directory / "client-key-plain.pem",
    )
    if made.client_key.exists():
        return made
    directory.mkdir(parents=True, exist_ok=True)
    _make_authority(directory, "ca")
    _make_authority(directory, "stranger")
    _make_signed(directory, "server", "/CN=localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    _make_signed(directory, "client", "/CN=client", "subjectAltName=DNS:client")
    store = (directory / "server-key-plain.pem").read_text() + (directory / "server.pem").read_text()
    made.server_store.write_text(store)
    _openssl(directory, "pkcs8", "-topk8", "-in", "client-key-plain.pem", "-out", "client-key.pem")
    return made


def _make_authority(directory: Path, name: str) -> None:
    request = ("req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", DAYS, "-subj", f"/CN=concord test {name}")
    _openssl(directory, *request, "-keyout", f"{name}-key.pem", "-out", f"{name}.pem")


def _make_signed(directory: Path, name: str, subject: str, names: str) -> None:
    request = ("req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", DAYS, "-subj", subject, "-addext", names)
    authority = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-addext", "basicConstraints=critical,CA:FALSE")
    _openssl(directory, *request, *authority, "-keyout", f"{name}-key-plain.pem", "-out", f"{name}.pem")


def _openssl(directory: Path, *arguments: str) -> None:
    secret = ("-passout", f"pass:{PASSWORD}") if arguments[0] == "pkcs8" else ()
    run = subprocess.run(["openssl", *arguments, *secret], cwd=directory, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"openssl {arguments[0]} failed: {run.stderr[-1000:]}")
