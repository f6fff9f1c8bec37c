"""A certificate authority for development: one file of trust per cluster, one certificate per process.

Its key lies beside the certificates, so whoever can read the folder can be anybody: for clusters on one machine and
for tests. Elsewhere an authority that you run issues certificates with the same names.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from omendb_common.clock import Clock
from omendb_common.security.tls import TlsFiles, name_uri

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 365
# Clocks of two machines may differ by this much.
_BACKDATED = dt.timedelta(minutes=10)
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class DevAuthority:
    """An authority in a folder: ``ca.pem``, ``ca.key``, and what it has issued."""

    folder: Path
    cluster_id: str
    _key: ec.EllipticCurvePrivateKey
    _certificate: x509.Certificate

    @staticmethod
    def open(folder: Path, cluster_id: str, clock: Clock) -> DevAuthority:
        """The authority of a folder, made when there is none yet."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (folder / "ca.pem").exists():
            _make_authority(folder, cluster_id, _now(clock))
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return DevAuthority(folder, cluster_id, key, x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()))

    def issue(
        self, role: str, node_id: str, clock: Clock, *, hosts: Sequence[str] = _LOCAL, days: float = CERTIFICATE_DAYS
    ) -> TlsFiles:
        """Write a key and a certificate for one process; those it had are replaced.

        Args:
            hosts: names and addresses under which it is called, for gRPC.
            days: how long it is valid from now; negative: it has expired already.
        """
        now, key = _now(clock), ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(node_id, key, now, days)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        x509.UniformResourceIdentifier(name_uri(self.cluster_id, role, node_id)),
                        *map(_host_name, hosts),
                    ]
                ),
                critical=False,
            )
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        stem = self.folder / f"{role}-{node_id}"
        files = TlsFiles(str(self.folder / "ca.pem"), f"{stem}.pem", f"{stem}.key")
        _write_private(Path(files.key), _key_pem(key))
        Path(files.cert).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return files


def _make_authority(folder: Path, cluster_id: str, now: dt.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"OmenDB development {cluster_id}"[:64])])
    certificate = (
        _builder(name, key, now, AUTHORITY_DAYS)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_private(folder / "ca.key", _key_pem(key))
    # Last: a folder with this file has the key too.
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: str | x509.Name, key: ec.EllipticCurvePrivateKey, now: dt.datetime, days: float
) -> x509.CertificateBuilder:
    if isinstance(subject, str):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject[:64])])
    end = now + dt.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - _BACKDATED)
        .not_valid_after(end)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, at every moment of its life."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(data)


def _now(clock: Clock) -> dt.datetime:
    return dt.datetime.fromtimestamp(clock.wall_ms() / 1000.0, dt.UTC).replace(microsecond=0)


__all__ = ["AUTHORITY_DAYS", "CERTIFICATE_DAYS", "DevAuthority"]
