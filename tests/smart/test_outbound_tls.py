"""The certificate must be that of the name, though the connection goes to an address.

Real TLS on this machine, with an authority made for the test.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fhir_portal.smart.outbound import NoAnswer, Outbound, client

ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    b"Connection: close\r\n\r\n{}"
)


def certificate(path: Path, name: str) -> Path:
    """Write a key and a certificate that signs itself, for one name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = path / f"{name}.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@asynccontextmanager
async def serving(file: Path) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def resolve(host: str, port: int) -> Sequence[str]:  # noqa: ARG001 - as resolvers do
    return ["127.0.0.1"]


@pytest.mark.parametrize(("name", "good"), [("app.example", True), ("other.example", False)])
async def test_the_certificate_is_held_against_the_name(
    tmp_path: Path,
    name: str,
    good: bool,  # noqa: FBT001 - a table
) -> None:
    """Planted fault: the name is not told to TLS, which then knows the address alone."""
    file = certificate(tmp_path, name)
    trust = ssl.create_default_context(cafile=str(file))
    async with (
        serving(file) as port,
        httpx.AsyncClient(verify=trust, trust_env=False) as http,
    ):
        asking = Outbound(http, loopback=True, resolve=resolve)
        if good:
            answer = await asking.get_json(f"https://app.example:{port}/jwks")
            assert answer.content == b"{}"
        else:
            with pytest.raises(NoAnswer):
                await asking.get_json(f"https://app.example:{port}/jwks")


async def test_a_certificate_that_nobody_vouches_for_is_no_answer(tmp_path: Path) -> None:
    """Planted fault: ``verify=False``."""
    async with (
        serving(certificate(tmp_path, "app.example")) as port,
        client() as http,
    ):
        asking = Outbound(http, loopback=True, resolve=resolve)
        with pytest.raises(NoAnswer):
            await asking.get_json(f"https://app.example:{port}/jwks")
