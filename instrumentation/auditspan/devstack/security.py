# SPDX-License-Identifier: Apache-2.0
"""An Elasticsearch with security on: users of the file realm, roles from a file, TLS with an authority of its own.

Only what the minimal distribution can do: it has no native users, roles and API keys (its security index cannot be
made), so everybody is in files.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ADMINISTRATOR = "administrator"
"""The user that may do everything (role ``superuser``)."""
_ROUNDS = 10_000
_YEAR = datetime.timedelta(days=365)


@dataclass
class Security:
    """What the secured Elasticsearch is to know.

    Attributes:
        roles: the content of ``roles.yml``.
        users: user → their roles; an :data:`ADMINISTRATOR` is added.
        password: of all of them; development only.
        tls: speak HTTPS, with a certificate for 127.0.0.1 and localhost.
        authority: where the certificate authority was written; None before the start, and without TLS.
    """

    roles: str
    users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    password: str = "auditspan-development"  # noqa: S105 - no secret: the server lives as long as a test session
    tls: bool = True
    authority: Path | None = None

    @property
    def scheme(self) -> str:
        """``https`` or ``http``."""
        return "https" if self.tls else "http"

    def write(self, folder: Path) -> None:
        """Write users, roles and certificates into the ``config`` folder of a server."""
        everybody = {ADMINISTRATOR: ("superuser",), **self.users}
        users = [f"{name}:{_hashed(self.password)}\n" for name in everybody]
        by_role: dict[str, list[str]] = {}
        for name, roles in everybody.items():
            for role in roles:
                by_role.setdefault(role, []).append(name)
        (folder / "users").write_text("".join(users))
        (folder / "users_roles").write_text(
            "".join(f"{role}:{','.join(names)}\n" for role, names in sorted(by_role.items()))
        )
        (folder / "roles.yml").write_text(self.roles)
        if self.tls:
            self.authority = folder / "authority.pem"
            _write_certificate(folder)

    def options(self) -> dict[str, object]:
        """Return the settings of the server; the trial licence has security by document and field."""
        found: dict[str, object] = {
            "xpack.security.enabled": "true",
            "xpack.license.self_generated.type": "trial",
            "xpack.security.http.ssl.enabled": str(self.tls).lower(),
            "xpack.security.transport.ssl.enabled": "false",
        }
        if self.tls:
            found |= {
                "xpack.security.http.ssl.key": "server.key",
                "xpack.security.http.ssl.certificate": "server.pem",
            }
        return found

    def answers(self, url: str) -> bool:
        """Return whether a GET by the administrator is answered with success."""
        login = base64.b64encode(f"{ADMINISTRATOR}:{self.password}".encode()).decode()
        request = urllib.request.Request(url, headers={"authorization": f"Basic {login}"})  # noqa: S310
        context = ssl.create_default_context(cafile=str(self.authority)) if self.tls else None
        try:
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:  # noqa: S310
                return bool(json.load(answer)["status"] in ("green", "yellow"))
        except (OSError, ValueError, KeyError):
            return False


def _hashed(password: str) -> str:
    """Return a password as the file realm keeps it (``PBKDF2WithHmacSHA512``, what FIPS installations use)."""
    salt = os.urandom(32)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS, 32)
    return f"{{PBKDF2}}{_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _write_certificate(folder: Path) -> None:
    """Write an authority and a certificate of the server by it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.timezone.utc)
    issuer_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = name("auditspan development authority")

    def certificate(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + _YEAR)

    authority = (
        certificate(issuer, issuer_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(issuer_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(issuer_key, hashes.SHA256())
    )  # fmt: skip
    server = (
        certificate(name("localhost"), key.public_key())
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "authority.pem").write_bytes(authority.public_bytes(pem))
    (folder / "server.pem").write_bytes(server.public_bytes(pem))
    (folder / "server.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "server.key").chmod(0o600)
