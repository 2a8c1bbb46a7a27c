"""A patient's app in one file: launch, read, refresh, and be revoked.

It finds everything from the FHIR base, sends the person to the authorization page, and comes back
with a token for one record:

    python examples/standalone_app.py --client-id CLIENT

opens a port on this machine for the answer and prints the address to visit. With ``--demo-user``
and ``--demo-password`` it visits the pages itself, which is how the tests run it.

SMART App Launch 2.2 (https://hl7.org/fhir/smart-app-launch/), standalone launch, public client.
Needs Authlib and httpx.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import secrets
import warnings
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
from authlib.deprecate import AuthlibDeprecationWarning

warnings.simplefilter("ignore", AuthlibDeprecationWarning)  # httpx does; Authlib prefers httpx2

from authlib.integrations.httpx_client import AsyncOAuth2Client  # noqa: E402

SCOPE = "launch/patient openid fhirUser offline_access patient/Patient.rs patient/Observation.rs"


async def main(arguments: argparse.Namespace) -> None:
    base = arguments.base.rstrip("/")

    # 1. Where is everything? One document tells; it needs no token.
    async with httpx.AsyncClient() as http:
        found = await http.get(f"{base}/.well-known/smart-configuration")
        server = found.raise_for_status().json()

    # 2. Ask. PKCE is obligatory, and `aud` says which server's data we want.
    app = AsyncOAuth2Client(
        client_id=arguments.client_id,
        redirect_uri=arguments.redirect_uri,
        scope=SCOPE,
        code_challenge_method="S256",
        token_endpoint_auth_method="none",  # noqa: S106 - a public client has no password
    )
    verifier = secrets.token_urlsafe(48)
    address, state = app.create_authorization_url(
        server["authorization_endpoint"], aud=base, code_verifier=verifier
    )
    if arguments.demo_user:
        answer = await visit(address, arguments)
    else:
        answer = await listen(address, arguments.redirect_uri)
    if answer.get("state") != state or answer.get("iss") != server["issuer"]:
        raise SystemExit("This answer was not for us.")
    if "error" in answer:
        raise SystemExit(f"No access: {answer['error']}. {answer.get('error_description', '')}")

    # 3. The code buys tokens, once. The answer says whose record, and what was really granted.
    await app.fetch_token(server["token_endpoint"], code=answer["code"], code_verifier=verifier)
    print(f"granted    {app.token['scope']}")
    patient = app.token["patient"]

    # 4. Read. Authlib puts the token into the Authorization header.
    person = (await app.get(f"{base}/Patient/{patient}")).raise_for_status().json()
    print(f"record     {name_of(person)}, born {person.get('birthDate', 'unknown')}")
    search = await app.get(
        f"{base}/Observation", params={"patient": patient, "_sort": "-date", "_count": "5"}
    )
    for entry in search.raise_for_status().json().get("entry", []):
        print(f"           {line_of(entry['resource'])}")

    # 5. After fifteen minutes the access token is over. The refresh token gets the next one, and
    #    is itself replaced: keep the newest.
    await app.refresh_token(server["token_endpoint"])
    again = await app.get(f"{base}/Patient/{patient}")
    print(f"refreshed  {again.status_code}")

    # 6. Give it back. Revoking one token ends the other as well, from the next request on.
    await app.revoke_token(server["revocation_endpoint"], token=app.token["refresh_token"])
    ended = await app.get(f"{base}/Patient/{patient}")
    print(f"revoked    {ended.status_code} {ended.headers.get('www-authenticate', '')}")
    await app.aclose()


async def listen(address: str, redirect_uri: str) -> dict[str, str]:
    """Send the person to the page, and wait on this machine for the redirect."""
    came: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = (await reader.readline()).split()[1].decode()
        text = b"You can close this page and go back to the app."
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(text), text))
        await writer.drain()
        writer.close()
        if urlsplit(target).path == urlsplit(redirect_uri).path and not came.done():
            came.set_result(parameters_of(target))

    here = urlsplit(redirect_uri)
    async with await asyncio.start_server(serve, here.hostname, here.port):
        print(f"Open this page in your browser:\n\n  {address}\n")
        return await came


async def visit(address: str, arguments: argparse.Namespace) -> dict[str, str]:
    """Be the person: sign in, choose a record, approve what is ticked."""
    async with httpx.AsyncClient(follow_redirects=False) as browser:
        page = await browser.get(address)
        while True:
            if page.is_redirect:
                location = urljoin(str(page.url), page.headers["location"])
                if location.startswith(arguments.redirect_uri):
                    return parameters_of(location)
                page = await browser.get(location)
                continue
            form = fields_of(page.text)
            if page.is_error or not form:
                raise SystemExit(f"The page at {page.url.path} says {page.status_code}.")
            if "password" in form:
                form |= {"username": arguments.demo_user, "password": arguments.demo_password}
            elif "record" in form:
                form["record"] = arguments.demo_record or form["record"]
            else:
                form["decision"] = "approve"
            page = await browser.post(page.url.copy_with(query=None), data=form)


def fields_of(page: str) -> dict[str, Any]:
    """The fields of a page's form as a browser would send them: enough for our own pages."""
    fields: dict[str, Any] = {}
    for tag in re.findall(r"<input [^>]*>", page):
        attributes = {name: unescape(value) for name, value in re.findall(r'(\w+)="([^"]*)"', tag)}
        name, value = attributes["name"], attributes.get("value", "")
        if attributes["type"] == "checkbox":
            fields.setdefault(name, [])
            if tag.endswith(" checked>"):
                fields[name].append(value)
        else:
            fields.setdefault(name, value)
    return fields


def parameters_of(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


def name_of(person: dict[str, Any]) -> str:
    name = person.get("name", [{}])[0]
    return name.get("text") or " ".join([*name.get("given", []), name.get("family", "")])


def line_of(observation: dict[str, Any]) -> str:
    code, quantity = observation["code"], observation.get("valueQuantity", {})
    what = code.get("text") or code.get("coding", [{}])[0].get("display", "")
    value = f"{quantity.get('value', '')} {quantity.get('unit', '')}".strip()
    return f"{observation.get('effectiveDateTime', '')[:10]}  {what}  {value}".rstrip()


def arguments_of(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Read a record that its owner chooses.")
    parser.add_argument("--base", default="http://127.0.0.1:8000/fhir", help="the FHIR base")
    parser.add_argument("--client-id", required=True, help="a public client")
    parser.add_argument("--redirect-uri", default="http://127.0.0.1:8765/callback")
    parser.add_argument("--demo-user", help="fill in the pages as this person")
    parser.add_argument("--demo-password")
    parser.add_argument("--demo-record", help="Patient/<id>; otherwise the first one")
    return parser.parse_args(given)


if __name__ == "__main__":
    asyncio.run(main(arguments_of()))
