"""A certificate and a macaroon of the shape that LND's have."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

MACAROON_END = b"\x00\x00\x06\x20"


def macaroon(number: int) -> bytes:
    return b"\x02\x01" + bytes([number]) + MACAROON_END + bytes([number]) * 32


def self_signed() -> tuple[bytes, bytes]:
    """Key and certificate for loopback, as LND makes them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lnd")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    unencrypted = serialization.NoEncryption()
    return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, unencrypted), certificate.public_bytes(pem)
