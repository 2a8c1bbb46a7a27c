"""The authorization request: what an app asked for, until a person has answered.

SMART App Launch 2.2 §2.0.6, RFC 6749 §4.1.1, OpenID Connect Core §3.1.2.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from fhir_portal.accounts.account import Account
from fhir_portal.consent.record import RecordAccess, StaffAccess, usable
from fhir_portal.records import Record
from fhir_portal.smart import errors
from fhir_portal.smart.authorization_details import check_request
from fhir_portal.smart.client import Client
from fhir_portal.smart.dpop import THUMBPRINT
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.launch import LAUNCH
from fhir_portal.smart.offer import ConsentOffer
from fhir_portal.smart.redirect import answer_at
from fhir_portal.smart.right import Right
from fhir_portal.smart.scope import ScopeSet

HANDLE_BYTES: Final = 24
_MAX_PARAMETER: Final = 8000
_MAX_SHORT: Final = 1024
_SHORT: Final = frozenset({"state", "nonce", "login_hint", "prompt"})
"""What is kept for as long as the request, though it needs little room."""
_PROMPTS: Final = frozenset({"none", "login", "consent", "select_account"})
_KEPT: Final = frozenset(
    {
        "response_type",
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "aud",
        "code_challenge",
        "code_challenge_method",
        "nonce",
        "prompt",
        "max_age",
        "login_hint",
        "dpop_jkt",
        "authorization_details",
        LAUNCH,
    }
)


class AuthorizationRequest(Record, frozen=True, kw_only=True):
    """A request in flight; ``key`` is the hash of the handle that pages pass on.

    ``browser`` binds it to one browser's session, ``""`` until that browser has come back from
    a cross-site form. ``practice`` and ``patient`` are the record that was chosen, ``others``
    those chosen beside it where several may be; with ``user/`` scopes only a practice is.
    ``encounter`` is the visit that was chosen. Answering it deletes it.
    """

    kind: ClassVar[str] = "authorization-request"

    expires: float
    issued: float
    parameters: dict[str, str]
    browser: str = ""
    practice: str | None = None
    patient: str | None = None
    others: tuple[tuple[str, str], ...] = ()
    encounter: str | None = None

    @property
    def launch(self) -> str | None:
        """The key of the launch that an EHR made for it."""
        return self.parameters.get(LAUNCH)

    @property
    def is_for_staff(self) -> bool:
        """Whether only a member of staff can answer it."""
        return self.scope.context == "user"

    @property
    def wants_several(self) -> bool:
        """Whether the person may choose several records."""
        return "authorization_details" in self.parameters

    @property
    def client_id(self) -> str:
        return self.parameters["client_id"]

    @property
    def redirect_uri(self) -> str:
        return self.parameters["redirect_uri"]

    @property
    def state(self) -> str | None:
        return self.parameters.get("state")

    @property
    def scope(self) -> ScopeSet:
        return ScopeSet.parse(self.parameters["scope"])

    @property
    def prompt(self) -> frozenset[str]:
        return frozenset(self.parameters.get("prompt", "").split())

    @property
    def login_hint(self) -> str:
        return self.parameters.get("login_hint", "")

    def accepts_sign_in_of(self, auth_time: float, *, now: float) -> bool:
        """Whether a sign-in at ``auth_time`` is fresh enough (``prompt``, ``max_age``)."""
        if auth_time >= self.issued:
            return True
        if self.prompt & {"login", "select_account"}:
            return False
        max_age = self.parameters.get("max_age")
        return max_age is None or now - auth_time <= int(max_age)


@dataclass(frozen=True, slots=True)
class SignInFirst:
    """Nobody is signed in, or not recently enough."""

    client: Client
    login_hint: str


@dataclass(frozen=True, slots=True)
class ChooseRecord:
    """There are several records, or one that is not the person's own.

    ``records`` by the value that names each in the picker. With ``several``, more than one may be
    chosen.
    """

    client: Client
    records: Mapping[str, RecordAccess]
    several: bool = False


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit to choose from: ``Encounter/<id>``, its day as FHIR has it, what it was."""

    reference: str
    day: str
    what: str


FindVisits = Callable[[Account, RecordAccess, ScopeSet], Awaitable[Sequence[Visit]]]
"""Finds the latest visits of a record that its person may see by these scopes, newest first."""

Sees = Callable[[Account, RecordAccess, ScopeSet, str], Awaitable[bool]]
"""Whether a person may read what a reference leads to, in a record and by these scopes."""


@dataclass(frozen=True, slots=True)
class ChoosePractice:
    """The person is on the staff of several practices that the app serves; by their keys."""

    client: Client
    practices: Mapping[str, StaffAccess]


@dataclass(frozen=True, slots=True)
class ChooseVisit:
    """There are several visits that the app can be told of."""

    client: Client
    record: RecordAccess
    visits: Sequence[Visit]


@dataclass(frozen=True, slots=True)
class AskConsent:
    """Show what is asked for, of which record, and let the person decide.

    ``about`` names record, relation and grant: the answer has to be about the same. ``others``
    are the records beside ``record`` that the same answer is about: a page shows all of them.
    With ``staff`` it is about all that a member of staff may use, and ``record``, if there is one,
    is only what the app was opened on. ``visit`` is the one the app is told of.
    """

    client: Client
    record: RecordAccess | None
    offer: ConsentOffer
    other_records: bool
    about: str
    others: tuple[RecordAccess, ...] = ()
    staff: StaffAccess | None = None
    visit: Visit | None = None
    other_visits: bool = False

    @property
    def rights(self) -> tuple[Right, ...]:
        """By what the app would get at anything."""
        if self.staff is not None:
            return (self.staff,)
        return (*([] if self.record is None else [self.record]), *self.others)


@dataclass(frozen=True, slots=True)
class NoRecord:
    """The account may use no record at all: all there is to do is to go back."""

    client: Client


@dataclass(frozen=True, slots=True)
class NotAllowed:
    """This person cannot answer it: all there is to do is to go back. It tells of no record.

    ``why``: they may not use what the EHR opened the app on, they are on no practice's staff, or
    no practice of theirs has approved the app for its staff.
    """

    client: Client
    why: Literal["launch", "staff", "app"]


@dataclass(frozen=True, slots=True)
class Finished:
    """Nothing left to ask: the browser goes to ``location``."""

    location: str


Step = (
    SignInFirst
    | ChooseRecord
    | ChoosePractice
    | ChooseVisit
    | AskConsent
    | NoRecord
    | NotAllowed
    | Finished
)


def values_of(records: Iterable[RecordAccess]) -> dict[str, RecordAccess]:
    """Name each record for the picker: ``Patient/<id>``, its practice before it where needed.

    Two practices may have given two people, or one, the same id.
    """
    listed = usable(records)
    times = Counter(record.patient for record in listed)
    return {
        record.patient if times[record.patient] == 1 else f"{record.practice}/{record.patient}": (
            record
        )
        for record in listed
    }


def collect(pairs: Sequence[tuple[str, str]]) -> tuple[dict[str, str], frozenset[str]]:
    """Return the parameters, first value each, and the names that came more than once.

    A parameter without a value is as good as none (RFC 6749 §3.1).
    """
    parameters: dict[str, str] = {}
    repeated = set()
    for name, value in pairs:
        if name in parameters:
            repeated.add(name)
        parameters.setdefault(name, value)
    given = {name: value for name, value in parameters.items() if value}
    return given, frozenset(repeated)


def redirect_uri_of(
    client: Client | None, parameters: Mapping[str, str], repeated: frozenset[str]
) -> str:
    """Return where answers may go; until that is certain, errors go to a page and nowhere else.

    Raises `InvalidClient` for an unknown client, `InvalidRequest` for another redirect URI than a
    registered one (RFC 6749 §4.1.2.1), `UnauthorizedClient` for one that waits for its review:
    nobody has looked at where it redirects to.
    """
    for name in ("client_id", "redirect_uri"):
        if name in repeated:
            raise errors.InvalidRequest(f"{name} came more than once")
        if not parameters.get(name):
            raise errors.InvalidRequest(f"{name} is missing")
    if client is None or client.disabled:
        raise errors.InvalidClient("no such client is registered here")
    if client.awaits_review:
        raise errors.UnauthorizedClient("This app waits until the portal has approved it.")
    if not client.may_redirect_to(parameters["redirect_uri"]):
        raise errors.InvalidRequest("redirect_uri is not registered for this client")
    return parameters["redirect_uri"]


def check_parameters(
    parameters: Mapping[str, str], repeated: frozenset[str], issuer: Issuer
) -> dict[str, str]:
    """Refuse what is repeated, missing or not offered; return the parameters to keep."""
    if repeated:
        raise errors.InvalidRequest("a parameter came more than once")
    if any(
        len(value) > (_MAX_SHORT if name in _SHORT else _MAX_PARAMETER)
        for name, value in parameters.items()
    ):
        raise errors.InvalidRequest("a parameter is too long")
    if "request" in parameters:
        raise errors.RequestNotSupported("request objects are not supported")
    if "request_uri" in parameters:
        raise errors.RequestUriNotSupported("request objects are not supported")
    response_type = parameters.get("response_type")
    if not response_type:
        raise errors.InvalidRequest("response_type is missing")
    if response_type != "code":
        raise errors.UnsupportedResponseType("response_type must be code")
    if parameters.get("response_mode", "query") != "query":
        raise errors.InvalidRequest("response_mode must be query")
    if not issuer.is_audience(parameters.get("aud", "")):
        raise errors.InvalidRequest(f"aud must be {issuer.fhir}")
    prompts = parameters.get("prompt", "").split()
    if not _PROMPTS.issuperset(prompts) or ("none" in prompts and len(prompts) > 1):
        raise errors.InvalidRequest("prompt is none, or any of login, consent, select_account")
    max_age = parameters.get("max_age", "0")
    if not (max_age.isascii() and max_age.isdigit() and len(max_age) <= len("9999999999")):
        raise errors.InvalidRequest("max_age is a number of seconds")
    if "authorization_details" in parameters:
        check_request(parameters["authorization_details"], issuer)
    jkt = parameters.get("dpop_jkt")
    if jkt is not None and not THUMBPRINT.fullmatch(jkt):
        raise errors.InvalidRequest("dpop_jkt is the SHA-256 thumbprint of a key (RFC 9449)")
    return {name: value for name, value in parameters.items() if name in _KEPT}


def needed(step: Step) -> errors.OAuthError:
    """What an app is told that wanted nobody to be asked (OpenID Connect Core §3.1.2.6)."""
    if isinstance(step, NotAllowed):
        return errors.AccessDenied("the person cannot use this")
    what = {ChoosePractice: "a practice", ChooseVisit: "a visit"}.get(type(step), "a record")
    return errors.InteractionRequired(f"{what} must be chosen")


def error_location(error: errors.OAuthError, issuer: Issuer) -> str:
    """The redirect that tells the app (RFC 6749 §4.1.2.1, RFC 9207); `redirect_uri` must be set."""
    if error.redirect_uri is None:
        raise ValueError("this error is for a page")
    return answer_at(
        error.redirect_uri,
        {
            "error": error.error,
            "error_description": error.description,
            "state": error.state,
            "iss": issuer.base,
        },
    )
