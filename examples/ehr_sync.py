"""An EHR beside the portal: writes what happened today, and follows what others changed.

    fhir-portal demo                        # in another window
    python examples/ehr_sync.py --once      # write, print the changes since, end
    python examples/ehr_sync.py             # write, then go on following until stopped

It is a *backend service* (SMART App Launch 2.2, section "Backend Services"): no person signs in.
It proves who it is by a signed assertion, and is given a token for its own practice, and no other.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from joserfc import jwt
from joserfc.jwk import import_key

FHIR_JSON = "application/fhir+json"


def get_token(base: str, client: dict[str, Any]) -> dict[str, Any]:
    """Exchange a signed assertion for an access token (RFC 7523 §2.2)."""
    # Where to ask is not guessed: the server says so.
    discovery = httpx.get(f"{base}/.well-known/smart-configuration").raise_for_status().json()
    endpoint = discovery["token_endpoint"]
    jwk = client["private_jwk"]
    claims = {
        "iss": client["client_id"],
        "sub": client["client_id"],
        "aud": endpoint,
        "exp": int(time.time()) + 240,  # five minutes are the most
        "jti": str(uuid.uuid4()),  # an assertion is good once
    }
    header = {"alg": "ES384", "typ": "JWT", "kid": jwk["kid"]}
    assertion = jwt.encode(header, claims, import_key(jwk), algorithms=["ES384"])
    reply = httpx.post(
        endpoint,
        data={
            "grant_type": "client_credentials",
            "scope": client["scope"],
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": assertion,
        },
    )
    if reply.is_error:
        sys.exit(f"no token: {reply.json().get('error_description', reply.text)}")
    token: dict[str, Any] = reply.json()
    return token


def todays_visit(patient: str) -> dict[str, Any]:
    """A transaction: a visit and what was measured, all of it or nothing.

    The entries refer to each other by ``urn:uuid``; the server puts in the ids it gives. With
    ``ifNoneExist`` the transaction may be sent again, after a lost answer, without doubling.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    visit = uuid.uuid4()
    number = {"system": "https://marrowbrook.example/visits", "value": str(visit)}
    encounter = {
        "resourceType": "Encounter",
        "identifier": [number],
        "status": "finished",
        "class": {
            "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
            "code": "AMB",
        },
        "subject": {"reference": patient},
        "period": {"start": now, "end": now},
    }
    heart_rate = {
        "resourceType": "Observation",
        "identifier": [number],
        "status": "final",
        "category": [
            {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                        "code": "vital-signs",
                    }
                ]
            }
        ],
        "code": {
            "coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}]
        },
        "subject": {"reference": patient},
        "encounter": {"reference": f"urn:uuid:{visit}"},
        "effectiveDateTime": now,
        "valueQuantity": {
            "value": 71,
            "unit": "/min",
            "system": "http://unitsofmeasure.org",
            "code": "/min",
        },
    }
    once = f"identifier={number['system']}|{number['value']}"
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": f"urn:uuid:{visit}",
                "resource": encounter,
                "request": {"method": "POST", "url": "Encounter", "ifNoneExist": once},
            },
            {
                "resource": heart_rate,
                "request": {"method": "POST", "url": "Observation", "ifNoneExist": once},
            },
        ],
    }


def changes(fhir: httpx.Client, since: str, count: int) -> Iterator[dict[str, Any]]:
    """Yield the history entries from ``since`` on, oldest first.

    The feed is newest first, page by page, so it is read to its end and turned round. No version
    turns up later with an older instant: whoever asks again from the latest one misses nothing.
    """
    url, entries = f"{fhir.base_url}_history?_since={since}&_count={count}", []
    while url:
        page = fhir.get(url).raise_for_status().json()
        entries += page.get("entry", ())
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), "")
    yield from reversed(entries)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", type=Path, default=Path("var/demo.json"), help="written by it")
    parser.add_argument("--client", default="marrowbrook-ehr", help="which of its clients to be")
    parser.add_argument("--patient", default="Patient/mara", help="who came today")
    parser.add_argument("--since", help="instant to follow from; default: the write itself")
    parser.add_argument("--count", type=int, default=50, help="entries on a page of the feed")
    parser.add_argument("--once", action="store_true", help="print the changes once and end")
    arguments = parser.parse_args()
    demo = json.loads(arguments.demo.read_text())
    client = next(one for one in demo["clients"] if one["client_id"] == arguments.client)

    token = get_token(demo["base"], client)
    print(f"{client['client_id']} may {token['scope']} for {token['expires_in']} s")
    headers = {"Authorization": f"Bearer {token['access_token']}", "Content-Type": FHIR_JSON}
    with httpx.Client(base_url=f"{demo['base']}/", headers=headers, timeout=30) as fhir:
        reply = fhir.post(demo["base"], content=json.dumps(todays_visit(arguments.patient)))
        if reply.is_error:
            sys.exit(f"nothing was written: {reply.json()['issue'][0]['diagnostics']}")
        written = [entry["response"] for entry in reply.json()["entry"]]
        for response in written:
            print("wrote", response["location"].removeprefix(f"{demo['base']}/"))

        since = arguments.since or written[0]["lastModified"]
        seen: set[str] = set()
        while True:
            for entry in changes(fhir, since, arguments.count):
                response = entry["response"]
                version = f"{entry['fullUrl'].removeprefix(demo['base'])} {response['etag']}"
                if version not in seen:  # the latest instant is asked for again, and comes again
                    seen.add(version)
                    method, name = entry["request"]["method"], version.strip("/")
                    print(response["lastModified"], f"{method:6} {name}", flush=True)
                since = max(since, response["lastModified"])
            if arguments.once:
                return
            time.sleep(2)  # a real EHR would get a new token before this one expires


if __name__ == "__main__":
    try:
        main()
    except httpx.ConnectError:
        sys.exit("nobody answers: start `fhir-portal demo` first")
    except KeyboardInterrupt:
        pass
