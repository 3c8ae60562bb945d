"""Keys and certificates: what OpenSSL, as Flower uses it, makes of them."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from learngene.errors import InputError
from runtime.federation.credentials import Credentials, make_credentials


def shake_hands(server: Credentials, authority: Path, name: str) -> str | None:
    """TLS between a server and a client that trusts ``authority``; what the client calls wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    client = ssl.create_default_context(cafile=str(authority))
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # Python's own from 3.13 on
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            context.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=name).close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    finally:
        ours.close()
        thread.join()
    return None


def test_a_node_knows_the_server_by_each_of_its_names_and_no_other_server(tmp_path: Path) -> None:
    made = make_credentials(tmp_path / "a", 1, ["factory.example.org", "192.0.2.7"])
    for name in ("localhost", "127.0.0.1", "factory.example.org", "192.0.2.7"):
        assert shake_hands(made, made.authority, name) is None
    assert "mismatch" in str(shake_hands(made, made.authority, "else.example.org"))
    other = make_credentials(tmp_path / "b", 1)
    assert shake_hands(other, made.authority, "localhost") is not None


def test_files_are_for_this_user_alone(tmp_path: Path) -> None:
    made = make_credentials(tmp_path / "keys", 2)
    names = {path.name for path in made.folder.iterdir()}
    assert names == {
        "ca.crt", "ca.key", "server.pem", "server.key",
        "node_1", "node_1.pub", "node_2", "node_2.pub",
    }  # fmt: skip
    assert made.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in made.folder.iterdir()} == {0o600}


def test_a_nodes_two_files_are_one_key_that_flower_takes(tmp_path: Path) -> None:
    made = make_credentials(tmp_path, 2)
    publics = []
    for number in (1, 2):
        key = load_ssh_private_key(made.node(number).read_bytes(), None)
        assert isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP384R1)
        public = load_ssh_public_key(made.node(number).with_suffix(".pub").read_bytes())
        assert public == key.public_key()
        publics.append(public)
    assert publics[0] != publics[1]


def test_a_public_key_that_is_missing_is_made_of_the_private_one(tmp_path: Path) -> None:
    """A process that is killed between the two files leaves the first alone."""
    public = make_credentials(tmp_path, 1).node(1).with_suffix(".pub")
    whole, private = public.read_bytes(), (tmp_path / "node_1").read_bytes()
    public.unlink()
    make_credentials(tmp_path, 1)
    assert public.read_bytes() == whole and (tmp_path / "node_1").read_bytes() == private
    public.unlink()
    (tmp_path / "node_1").write_bytes(private[: len(private) // 2])
    with pytest.raises(InputError, match="node_1: this node's private key cannot be read"):
        make_credentials(tmp_path, 1)


def test_more_nodes_and_names_come_later_and_no_key_changes(tmp_path: Path) -> None:
    first = make_credentials(tmp_path, 1)
    kept = {name: (tmp_path / name).read_bytes() for name in ("ca.crt", "ca.key", "node_1")}
    second = make_credentials(tmp_path, 3, ["factory.example.org"])
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept
    assert second.node(3).exists()
    assert shake_hands(second, first.authority, "factory.example.org") is None


def test_what_cannot_be_is_one_message(tmp_path: Path) -> None:
    made = make_credentials(tmp_path, 1)
    with pytest.raises(InputError, match=r"--host=fäctory"):
        make_credentials(tmp_path, 1, ["fäctory"])
    made.authority.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        make_credentials(tmp_path, 1)


def test_the_authority_signs_and_the_server_does_not(tmp_path: Path) -> None:
    made = make_credentials(tmp_path, 1)
    for path, may in ((made.authority, True), (made.certificate, False)):
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        extensions = certificate.extensions
        assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is may
        assert extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is may
