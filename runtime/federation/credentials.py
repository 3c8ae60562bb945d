"""Who is who in a federation: an authority, the server's certificate, a key pair for each node.

Nodes know the server by a certificate that the authority has signed; the server knows a node by its
key, which is registered before. Elliptic curve P-384, as in Flower's own example.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP384R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from learngene.errors import InputError
from learngene.utils.files import write_atomically

LOCAL = ("localhost", "127.0.0.1", "::1")
AUTHORITY_DAYS, SERVER_DAYS = 3650, 365


@dataclass(frozen=True)
class Credentials:
    """Where the files of a federation lie.

    ``ca.key`` signs a new server certificate and stays with whoever makes them; a node is given
    ``ca.crt`` and ``node_N``; the server needs ``ca.crt``, ``server.*`` and each ``node_N.pub``.
    """

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def certificate(self) -> Path:
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        return self.folder / "server.key"

    def node(self, number: int) -> Path:
        """A node's private key (OpenSSH); nodes count from 1. Its public key is NAME.pub."""
        return self.folder / f"node_{number}"


def make_credentials(folder: Path, nodes: int, hosts: Sequence[str] = ()) -> Credentials:
    """Make what is missing in ``folder``; the server's certificate anew each time, for a year.

    Keys of nodes that are there stay, so that more nodes may be added later; to replace one, remove
    its two files. Files are for this user alone (0600), and so is the folder (0700).

    Args:
        nodes: how many nodes have a key afterwards, at least.
        hosts: names and addresses by which nodes reach the server, besides this machine's own.

    Raises:
        InputError: the authority's key is there and cannot be read, or lacks its certificate; or a
            node's cannot, whose public key is not there.
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    made = Credentials(folder)
    authority, signer = _authority(made)
    key = generate_private_key(SECP384R1())
    _write(made.key, _pem(key))
    _write(made.certificate, _server(key, [*LOCAL, *hosts], authority, signer))
    for number in range(1, nodes + 1):
        _node_keys(made.node(number))
    return made


def _node_keys(path: Path) -> None:
    """A node's two files. The public key is the last, and made of the private one that is there."""
    if not path.exists():
        _write(path, _pem(generate_private_key(SECP384R1()), PrivateFormat.OpenSSH))
    public = path.with_suffix(".pub")
    if not public.exists():
        try:
            own = load_ssh_private_key(path.read_bytes(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            problem = f"this node's private key cannot be read ({error})"
            raise InputError("credentials", path, problem, "Remove it") from error
        _write(
            public, own.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n"
        )


def _authority(made: Credentials) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    """The authority that is there, or a new one where there is none."""
    path = made.authority.with_suffix(".key")
    if path.exists():
        try:
            key = load_pem_private_key(path.read_bytes(), None)
            certificate = x509.load_pem_x509_certificate(made.authority.read_bytes())
        except (ValueError, OSError) as error:
            raise InputError(
                "credentials", made.folder, f"the authority there cannot be read ({error})",
                "Name an empty folder, and register its keys",
            ) from error  # fmt: skip
        assert isinstance(key, EllipticCurvePrivateKey)
        return certificate, key
    key = generate_private_key(SECP384R1())
    name = _name("learngene federation")
    certificate = (
        _certificate(name, name, key, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, SHA384())
    )
    _write(path, _pem(key))
    _write(made.authority, certificate.public_bytes(Encoding.PEM))
    return certificate, key


def _server(
    key: EllipticCurvePrivateKey,
    hosts: Sequence[str],
    authority: x509.Certificate,
    signer: EllipticCurvePrivateKey,
) -> bytes:
    issuer = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    names = x509.SubjectAlternativeName([_host(each) for each in dict.fromkeys(hosts)])
    subject = _name("learngene superlink")
    certificate = (
        _certificate(subject, authority.subject, key, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False
        )
        .add_extension(names, critical=False)
        .sign(signer, SHA384())
    )
    return certificate.public_bytes(Encoding.PEM)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks of two machines differ
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
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


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text)
    except ValueError as error:
        raise InputError(
            "--host", text, "that is no name and no address", "Give a name in ASCII, as in DNS"
        ) from error


def _pem(key: EllipticCurvePrivateKey, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def _write(path: Path, data: bytes) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(path, data)
    finally:
        os.umask(before)
