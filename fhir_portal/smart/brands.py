"""User-access brands: under which names people know the practices behind this server.

SMART App Launch 2.2, "User-access Brands and Endpoints". One practice is its own brand. Several
share one portal and one endpoint: the portal is then the primary brand, and each practice is an
affiliate of it (``partOf``), so that an app lists all of them and sends people to one place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.practice_list import Listing, PracticeList
from fhir_portal.records import Record, RecordStore, RecordTransaction
from fhir_portal.smart.issuer import Issuer

BRANDS_PATH: Final = "/brands"
DEVELOPERS_PATH: Final = "/developers"
_PROFILES: Final = "http://hl7.org/fhir/smart-app-launch/StructureDefinition"
_STRUCTURES: Final = "http://hl7.org/fhir/StructureDefinition"
FEATURE: Final = "https://fhir-portal.example/ig/StructureDefinition/portal-feature"
_TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem"
_URI: Final = "urn:ietf:rfc:3986"
_FHIR_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_ENDPOINT: Final = "fhir-r4"
_PORTAL: Final = "portal"
_CURRENT: Final = "current"


class PublishedBrands(Record, frozen=True, kw_only=True):
    """When the content of the Bundle last changed: its ``timestamp``."""

    kind: ClassVar[str] = "published-brands"

    content: str
    at: float


def brand_metadata(issuer: Issuer) -> dict[str, Any]:
    """The members of ``smart-configuration`` that lead to the primary brand."""
    return {
        "user_access_brand_bundle": issuer.at(BRANDS_PATH),
        "user_access_brand_identifier": {"system": _URI, "value": issuer.base},
    }


def sign_in_link(issuer: Issuer, practice: str = "") -> str:
    """The link for a practice's own website: the sign-in, which then names the practice."""
    query = f"?{urlencode({'practice': practice})}" if practice else ""
    return issuer.at(f"/signin{query}")


@dataclass(frozen=True, slots=True)
class Brands:
    """The Bundle as bytes, and a name (``content``) that is its content's."""

    content: str
    body: bytes


class BrandList:
    """Publishes the practices whose portal is on; made again only when a practice has changed."""

    def __init__(self, store: RecordStore, issuer: Issuer, clock: Callable[[], float]) -> None:
        self._store = store
        self._issuer = issuer
        self._clock = clock
        self._practices = PracticeList(store)
        self._kept: tuple[Listing, Brands] | None = None

    async def now(self) -> Brands:
        """Return what is published now."""
        listing = await self._practices.now()
        if self._kept is None or self._kept[0] is not listing:
            self._kept = listing, await self._made_of(listing)
        return self._kept[1]

    async def _made_of(self, listing: Listing) -> Brands:
        there = [(practice, policy) for practice, policy in listing.practices if policy.portal]
        features = {practice.key: policy.offers for practice, policy in there}
        bundle = brands_bundle(self._issuer, [practice for practice, _ in there], features)
        content = hashlib.sha256(msgspec.json.encode(bundle)).hexdigest()[:32]
        now = self._clock()

        async def publish(transaction: RecordTransaction) -> PublishedBrands:
            known = await transaction.get(PublishedBrands, _CURRENT)
            if known is None or known.content != content:
                known = PublishedBrands(key=_CURRENT, content=content, at=now)
                await transaction.put(known)
            return known

        known = await self._store.get(PublishedBrands, _CURRENT)
        if known is None or known.content != content:
            known = await self._store.transact(publish)
        moment = datetime.fromtimestamp(known.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Brands(content, msgspec.json.encode({**bundle, "timestamp": moment}))


def brands_bundle(
    issuer: Issuer,
    practices: Sequence[Practice],
    features: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """The Bundle (profile user-access-brands-bundle) without its timestamp.

    ``features`` are what each practice, by its key, offers its patients.
    """
    offered = features or {}
    listed = sorted(practices, key=lambda practice: practice.key)
    if len(listed) == 1:
        only = listed[0]
        portal = sign_in_link(issuer, only.key)
        brand = _primary(issuer, _id_of(only), only.name, _identifier(issuer, listed), portal)
        brands = [_offering(brand, offered.get(only.key, ()))]
    else:
        name = f"Patient portal at {urlsplit(issuer.base).netloc}"
        brands = [
            _primary(issuer, _PORTAL, name, [], sign_in_link(issuer)),
            *(
                _offering(_affiliate(issuer, practice), offered.get(practice.key, ()))
                for practice in listed
            ),
        ]
    return {
        "resourceType": "Bundle",
        "id": "user-access-brands",
        "meta": {"profile": [f"{_PROFILES}/user-access-brands-bundle"]},
        "type": "collection",
        "entry": [
            {
                "fullUrl": issuer.at(f"{BRANDS_PATH}/{one['resourceType']}/{one['id']}"),
                "resource": one,
            }
            for one in [*brands, _endpoint(issuer, brands[0])]
        ],
    }


def _primary(
    issuer: Issuer, own_id: str, name: str, identifiers: list[dict[str, str]], portal_url: str
) -> dict[str, Any]:
    """The brand that has the portal and the endpoint."""
    endpoint = {"reference": f"Endpoint/{_ENDPOINT}"}
    portal = [
        {"url": "portalName", "valueString": "Patient portal"},
        {"url": "portalUrl", "valueUrl": portal_url},
        {"url": "portalEndpoint", "valueReference": endpoint},
    ]
    return {
        **_brand(issuer, own_id, name, [{"system": _URI, "value": issuer.base}, *identifiers]),
        "extension": [{"url": f"{_STRUCTURES}/organization-portal", "extension": portal}],
        "endpoint": [endpoint],
    }


def _affiliate(issuer: Issuer, practice: Practice) -> dict[str, Any]:
    """A practice whose patients use the portal of the primary brand; its page leads to both."""
    own_page = issuer.at(f"/help/{quote(practice.key, safe='')}")
    return {
        **_brand(issuer, _id_of(practice), practice.name, _identifier(issuer, [practice])),
        "telecom": [{"system": "url", "value": own_page}],
        "partOf": {"reference": f"Organization/{_PORTAL}"},
    }


def _offering(brand: dict[str, Any], features: Sequence[str]) -> dict[str, Any]:
    """A brand that says what its patients are offered, beside reading their records."""
    if not features:
        return brand
    said = [{"url": FEATURE, "valueCode": one} for one in features]
    return {**brand, "extension": [*brand.get("extension", ()), *said]}


def _brand(
    issuer: Issuer, own_id: str, name: str, identifiers: list[dict[str, str]]
) -> dict[str, Any]:
    category = {"system": f"{_TERMINOLOGY}/organization-type", "code": "prov"}
    return {
        "resourceType": "Organization",
        "id": own_id,
        "meta": {"profile": [f"{_PROFILES}/user-access-brand"]},
        "identifier": identifiers,
        "active": True,
        "type": [{"coding": [category]}],
        "name": name,
        "telecom": [{"system": "url", "value": issuer.base}],
    }


def _endpoint(issuer: Issuer, brand: dict[str, Any]) -> dict[str, Any]:
    """The one FHIR base (profile user-access-endpoint)."""
    none = {"system": f"{_TERMINOLOGY}/endpoint-payload-type", "code": "none"}
    return {
        "resourceType": "Endpoint",
        "id": _ENDPOINT,
        "meta": {"profile": [f"{_PROFILES}/user-access-endpoint"]},
        "extension": [{"url": f"{_STRUCTURES}/endpoint-fhir-version", "valueCode": "4.0.1"}],
        "status": "active",
        "connectionType": {
            "system": f"{_TERMINOLOGY}/endpoint-connection-type",
            "code": "hl7-fhir-rest",
        },
        "name": f"FHIR R4 endpoint of {brand['name']}",
        "managingOrganization": {"reference": f"Organization/{brand['id']}"},
        "contact": [{"system": "url", "value": issuer.at(DEVELOPERS_PATH)}],
        "payloadType": [{"coding": [none]}],
        "address": issuer.fhir,
    }


def _identifier(issuer: Issuer, practices: Sequence[Practice]) -> list[dict[str, str]]:
    system = issuer.at(BRANDS_PATH)
    return [{"system": system, "value": practice.key} for practice in practices]


def _id_of(practice: Practice) -> str:
    """The practice's key where it can be a FHIR id that is not the portal's own."""
    if _FHIR_ID.fullmatch(practice.key) and practice.key != _PORTAL:
        return practice.key
    return hashlib.sha256(practice.key.encode()).hexdigest()
