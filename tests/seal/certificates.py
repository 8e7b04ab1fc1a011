# SPDX-License-Identifier: Apache-2.0
"""A certificate authority of its own, with one certificate for a receiver and one for a sender."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Certificates:
    """PEM files."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path
    peers: dict[str, tuple[Path, Path]] = field(default_factory=dict)
    """Name → certificate and key of those who are both."""

    def context(self, *, client_required: bool = True) -> ssl.SSLContext:
        """Return what a receiver needs."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.server, self.server_key)
        if client_required:
            made.load_verify_locations(self.authority)
            made.verify_mode = ssl.CERT_REQUIRED
        return made


def make_certificates(folder: Path, *peers: str) -> Certificates:
    """Make them, and one more for each of `peers`, which may call and be called."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    authority = _builder(name, name, key.public_key()).add_extension(x509.BasicConstraints(True, 0), True)
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    authority = authority.add_extension(usage, True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    signed = authority.add_extension(identifier, False).sign(key, hashes.SHA256())
    (folder / "authority.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    serving, calling = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
    for who, purposes in (
        ("server", [serving]),
        ("client", [calling]),
        *((peer, [serving, calling]) for peer in peers),
    ):
        own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)])
        places = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = (
            _builder(subject, name, own.public_key())
            .add_extension(x509.SubjectAlternativeName(places), False)
            .add_extension(x509.ExtendedKeyUsage(purposes), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False)
            .sign(key, hashes.SHA256())
        )
        (folder / f"{who}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (folder / f"{who}.key").write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    names = ("authority.pem", "server.pem", "server.key", "client.pem", "client.key")
    more = {peer: (folder / f"{peer}.pem", folder / f"{peer}.key") for peer in peers}
    return Certificates(*(folder / file for file in names), more)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
