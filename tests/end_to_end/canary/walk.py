"""Goes through everything there is, in a server that runs: rightly, and in every wrong way."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx
import pyotp
from joserfc import jwt
from joserfc.jwk import import_key

from fhir_portal.notify.signature import SIGNATURE, signature
from fhir_portal.web.notify import MAIL_BOUNCE, SMS_STATUS
from tests.end_to_end.canary.evidence import CALLBACK, Evidence
from tests.end_to_end.canary.marked import DESK, PRACTICE, Newcomer, World, parameters
from tests.end_to_end.canary.visitor import Visitor
from tests.smart.proofs import Holder

_PATIENCE: Final = 90.0
_SIGNS: Final[dict[str, str]] = {
    "link": r"/activate/([0-9a-f]{64})",
    "security code": r"\b([0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4})\b",
    "one-time code": r"(?<![0-9A-Za-z])(\d{4} \d{4})(?![0-9A-Za-z])",
}
_SCOPE: Final = (
    "launch/patient openid fhirUser offline_access patient/Patient.rs patient/Observation.rs"
)
_VERIFIER: Final = "v" * 64
_NAME: Final = "Marrowbrook Family Medicine"
Say = Callable[[str], None]


@dataclass
class Walk:
    """The world, where it is served, and what is collected on the way.

    A ``short`` one types fewer wrong values. ``gateways`` are the secrets of who sends for us, by
    the address at which they say what came back.
    """

    base: str
    world: World
    evidence: Evidence
    say: Say = lambda _: None
    short: bool = False
    gateways: Mapping[str, str] = field(default_factory=dict)
    seen: set[tuple[str, str]] = field(default_factory=set)
    ehr_token: str = ""

    def __post_init__(self) -> None:
        self.canaries = self.evidence.canaries
        self.api = httpx.Client(
            base_url=self.base, event_hooks={"response": [self.evidence.record]}, timeout=60
        )
        self.visitors: list[Visitor] = []

    def close(self) -> None:
        """Hang up."""
        self.api.close()
        for one in self.visitors:
            one.close()

    def everything(self) -> None:
        """All of it."""
        for part in (
            self.the_ehr_comes,
            self.invitations_and_activations,
            self.sign_in_and_security,
            self.recoveries,
            self.apps,
            self.staff_and_operations,
            self.taking_along,
            self.fhir_answers,
            self.wrong_inputs,
            self.what_came_back,
            self.places_without_a_door,
        ):
            self.say(part.__name__.replace("_", " "))
            part()

    # --- what everybody needs ------------------------------------------------------------------

    def visitor(self) -> Visitor:
        """A browser of somebody new."""
        made = Visitor(self.base, self.evidence)
        self.visitors.append(made)
        return made

    def signed_in(self, who: str, path: str = "/account/security") -> Visitor:
        """A browser in which one of the demo's people signed in on the way to a page."""
        visitor = self.visitor().open(path)
        return visitor.fill(
            "/signin", username=self.world.usernames[who], password=self.world.password
        )

    def newcomer(self, *, mail: bool = True, phone: bool = True) -> Newcomer:
        """A patient that the EHR has just sent."""
        made = self.world.newcomer(mail=mail, phone=phone)
        answer = self.ehr("PUT", f"Patient/{made.id}", made.resource)
        assert answer.status_code == 201, answer.text
        return made

    def ehr(self, method: str, path: str, resource: Any = None, **more: Any) -> httpx.Response:
        """What the EHR asks at the FHIR API."""
        headers = {"Authorization": f"Bearer {self.ehr_token}", **more.pop("headers", {})}
        if resource is not None:
            more["content"] = resource if isinstance(resource, bytes) else json.dumps(resource)
            headers.setdefault("Content-Type", "application/fhir+json")
        typed = more.pop("typed", False)
        return self.api.request(
            method, f"/fhir/{path}", headers=headers, extensions={"typed": typed}, **more
        )

    def received(self, address: str, kind: str) -> str:
        """The link or code that comes next to an address."""
        deadline = time.monotonic() + _PATIENCE
        pattern = re.compile(_SIGNS[kind])
        while True:
            for text in self._texts(address):
                found = pattern.search(text)
                if found and (address, found[1]) not in self.seen:
                    self.seen.add((address, found[1]))
                    return self.canaries.add(kind, found[1])
            assert time.monotonic() < deadline, f"no {kind} comes: {self._texts(address)}"
            time.sleep(0.1)

    def _texts(self, address: str) -> list[str]:
        mails = [one.text for one in list(self.evidence.mails) if address in one.recipients]
        sms = [json.loads(body) for _, body in list(self.evidence.sms)]
        return [*mails, *(one["text"] for one in sms if one["to"] == address)]

    def invited(self, patient: str, **given: Any) -> dict[str, Any]:
        """The answer of ``$portal-invite``; what is handed over is collected."""
        answer = self.ehr("POST", f"Patient/{patient}/$portal-invite", parameters(**given))
        assert answer.status_code == 201, answer.text
        return self._handed_over(answer)

    def _handed_over(self, answer: httpx.Response) -> dict[str, Any]:
        found = {
            one["name"]: next(v for k, v in one.items() if k.startswith("value"))
            for one in answer.json()["parameter"]
            if any(k.startswith("value") for k in one)
        }
        if "link" in found:
            found["link"] = self.canaries.add("link", found["link"].rpartition("/")[2])
        for name, kind in (
            ("security-code", "security code"),
            ("portal-id", "portal ID"),
            ("activation-word", "activation word"),
            ("desk-code", "desk code"),
        ):
            self.canaries.add(kind, found.get(name))
        return found

    # --- the EHR -------------------------------------------------------------------------------

    def assertion(self, client_id: str, jwk: Any, **changes: Any) -> str:
        """What a backend client signs in with."""
        key = import_key(jwk)
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": f"{self.base}/oauth/token",
            "exp": int(time.time()) + 240,
            "jti": secrets.token_hex(16),
            **changes,
        }
        made = jwt.encode(
            {"alg": "ES384", "kid": key.kid, "typ": "JWT"}, claims, key, algorithms=["ES384"]
        )
        return self.canaries.add("client assertion", made)

    def token(self, form: dict[str, str], **more: Any) -> httpx.Response:
        """Ask the token endpoint; the tokens in its answer are collected."""
        answer = self.api.post("/oauth/token", data=form, **more)
        if answer.status_code == 200:
            body = answer.json()
            self.canaries.add("access token", body.get("access_token"))
            self.canaries.add("refresh token", body.get("refresh_token"))
            self.canaries.add("id token", body.get("id_token"))
        return answer

    def the_ehr_comes(self) -> None:
        """Backend services: wrongly, then rightly."""
        client = self.world.clients[f"{PRACTICE}-ehr"]
        form = {
            "grant_type": "client_credentials",
            "scope": "system/*.cruds",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        }
        late = self.assertion(client["client_id"], client["private_jwk"], exp=1)
        assert self.token({**form, "client_assertion": late}).status_code == 400 + 1
        good = self.assertion(client["client_id"], client["private_jwk"])
        answer = self.token({**form, "client_assertion": good})
        assert answer.status_code == 200, answer.text
        self.ehr_token = answer.json()["access_token"]
        assert self.token({**form, "client_assertion": good}).status_code == 401  # used

    # --- invitation and activation -------------------------------------------------------------

    def invitations_and_activations(self) -> None:
        """Every channel, every way, each with wrong tries before the right one."""
        self._by_mail_and_sms()
        self._by_sms()
        self._by_code_at_the_desk()
        self._by_sheet()
        self._by_register()
        self._for_another()
        self._by_booking()
        self._again_and_back()

    def _account(self, visitor: Visitor, newcomer: Newcomer) -> None:
        if visitor.heading.startswith("How can we reach you"):
            visitor.fill("/activate/contact", button="how=next", mail=newcomer.mail)
        short = self.canaries.add("password", self.world.mint.word(3))
        given = {"username": newcomer.username, "password": short, "repeated": short}
        visitor.fill("/activate/account", button="how=password", **given)
        given |= {"password": newcomer.password, "repeated": f"{newcomer.password}x"}
        visitor.fill("/activate/account", button="how=password", **given)
        given |= {"repeated": newcomer.password}
        visitor.fill("/activate/account", button="how=password", **given)
        visitor.at("Your account is ready")
        self._recovery_codes(visitor)

    def _recovery_codes(self, visitor: Visitor) -> list[str]:
        found = [
            one.text_content().strip() for one in visitor.document.xpath('//ol[@class="codes"]/li')
        ]
        self.canaries.add("recovery code", *found)
        return found

    def _by_mail_and_sms(self) -> None:
        who = self.newcomer()
        self.invited(who.id, kind_Code="self")
        link = self.received(who.mail, "link")
        code = self.received(who.phone, "security code")
        visitor = self.visitor().open(f"/activate/{link}")
        other = self.newcomer()
        for wrong in (
            {**who.who, "code": who.password},
            {**other.who, "code": code},
            {**who.who, "month": link, "code": code},
        ):
            visitor.fill(f"/activate/{link}", **wrong)
        visitor.fill(f"/activate/{link}", code=code, **who.who)
        self._account(visitor.at("Your account"), who)
        self.visitor().open(f"/activate/{link}")  # used

    def _by_sms(self) -> None:
        who = self.newcomer()
        self.invited(who.id, kind_Code="self", channel_Code="sms")
        link = self.received(who.phone, "link")
        code = self.received(who.mail, "security code")
        visitor = self.visitor().open(f"/activate/{link}")
        visitor.fill(f"/activate/{link}", code=code, **who.who)
        self._account(visitor.at("Your account"), who)

    def _by_code_at_the_desk(self) -> None:
        who = self.newcomer()
        handed = self.invited(who.id, kind_Code="self", channel_Code="desk")
        visitor = self.visitor().open("/activate/code")
        for wrong in (handed["link"], handed["activation-word"]):
            visitor.fill("/activate/code", code=wrong, practice_id=_NAME, **who.who)
        visitor.fill(
            "/activate/code",
            code=handed["security-code"],
            practice_id=handed["security-code"],
            **who.who,
        )
        visitor.fill(
            "/activate/code",
            code=handed["security-code"],
            practice_id=_NAME,
            **who.who,
        )
        self._account(visitor.at("How can we reach you"), who)

    def _by_sheet(self) -> None:
        who = self.newcomer(mail=False, phone=False)
        handed = self.invited(who.id, kind_Code="self", channel_Code="paper")
        task = handed["invitation"]["reference"]
        for form in ("pdf", "html"):
            printed = self.ehr("POST", f"{task}/$print-instructions", parameters(format_Code=form))
            assert printed.status_code == 200, printed.text
            if "parameter" in printed.text:
                handed |= self._handed_over(printed)
        # Printing makes another attempt where nothing was printed yet: the newest codes count.
        again = self.ehr("POST", f"{task}/$invite-resend")
        assert again.status_code == 200, again.text
        handed |= self._handed_over(again)
        sheet = {
            "portal_id": handed["portal-id"],
            "first_initial": who.given[0],
            "last_initial": who.family[0],
            "word": handed["activation-word"],
            **who.who,
        }
        visitor = self.visitor().open("/activate/sheet")
        if visitor.document.xpath("//select/option"):
            sheet["practice_id"] = self._of_practice(visitor)
        visitor.fill("/activate/sheet", **{**sheet, "word": handed["security-code"]})
        visitor.fill("/activate/sheet", **sheet)
        self._account(visitor.at("How can we reach you"), who)

    def _of_practice(self, visitor: Visitor) -> str:
        (found,) = [
            str(one.get("value"))
            for one in visitor.document.xpath("//select/option")
            if "Marrowbrook" in one.text_content()
        ]
        return found

    def _by_register(self) -> None:
        who = self.newcomer()
        visitor = self.visitor().open("/register")
        given = {
            "practice_id": self._of_practice(visitor),
            "mail": who.mail,
            "first": who.given,
            "last": who.family,
            **who.who,
        }
        visitor.fill("/register", **given)
        code = self.received(who.mail, "one-time code")
        visitor.fill("/activate/proof", code=who.password)
        visitor.fill("/activate/proof", code=code)
        if visitor.heading.startswith("Prove that it is you"):
            visitor.fill("/activate/proof/send", contact="0")
            visitor.fill("/activate/proof", code=self.received(who.phone, "one-time code"))
        self._account(visitor.at("Your account"), who)
        # Somebody who is nobody here, and somebody who has an account.
        stranger = self.world.newcomer()
        visitor = self.visitor().open("/register")
        wrong = {**given, "mail": stranger.mail, "first": stranger.given, "last": stranger.family}
        visitor.fill("/register", **{**wrong, **stranger.who})
        visitor.fill("/activate/proof", code=who.password)
        self.visitor().open("/register").fill("/register", **given)
        self.visitor().open("/register").fill("/register", **{**given, "mail": who.password})

    def _for_another(self) -> None:
        child, parent = self.newcomer(), self.world.newcomer()
        handed = self.invited(
            child.id,
            kind_Code="guardian",
            name_HumanName={"family": parent.family, "given": [parent.given]},
            relationship_CodeableConcept={"text": self.world.mint.fresh("note")},
            telecom_ContactPoint={"system": "email", "value": parent.mail},
            basis_Code="guardian",
            period_Period={"end": "2039-01-01"},
        )
        link = self.received(parent.mail, "link")
        visitor = self.visitor().open(f"/activate/{link}")
        visitor.fill(f"/activate/{link}", code=handed["security-code"], **child.who)
        self._account(visitor.at("Your account"), parent)

    def _by_booking(self) -> None:
        who = self.newcomer()
        visit = {
            "resourceType": "Appointment",
            "id": f"visit-{who.id}",
            "status": "booked",
            "description": self.world.mint.fresh("note"),
            "start": "2039-01-01T09:00:00Z",
            "end": "2039-01-01T09:20:00Z",
            "participant": [{"actor": {"reference": f"Patient/{who.id}"}, "status": "accepted"}],
        }
        assert self.ehr("PUT", f"Appointment/{visit['id']}", visit).status_code == 201
        self.received(who.mail, "link")

    def _again_and_back(self) -> None:
        who = self.newcomer()
        handed = self.invited(who.id, kind_Code="self", channel_Code="letter")
        task = handed["invitation"]["reference"]
        self._handed_over(self.ehr("POST", f"{task}/$invite-resend"))
        self.visitor().open(f"/activate/{handed['link']}")  # superseded
        assert (
            self.ehr(
                "POST", f"Patient/{who.id}/$portal-invite", parameters(kind_Code="self")
            ).status_code
            == 409
        )
        reason = self.world.mint.fresh("note")
        answer = self.ehr("POST", f"{task}/$invite-revoke", parameters(reason_String=reason))
        assert answer.status_code == 200, answer.text
        assert self.ehr("POST", f"{task}/$invite-resend").status_code == 409
        # Tried too often: locked, and staff are told.
        locked = self.newcomer()
        own = self.invited(locked.id, kind_Code="self", channel_Code="desk")
        visitor = self.visitor().open(f"/activate/{own['link']}")
        for _ in range(6):
            if f"/activate/{own['link']}" not in visitor.actions:
                break
            visitor.fill(f"/activate/{own['link']}", code=locked.password, **locked.who)

    # --- sign-in and what one has --------------------------------------------------------------

    def sign_in_and_security(self) -> None:
        """Passwords, codes of an app, recovery codes, questions, contacts; right and wrong."""
        world, mint = self.world, self.world.mint
        visitor = self.visitor().open("/signin?practice=marrowbrook")
        name = world.usernames["teodor"]
        visitor.fill("/signin", username=name, password=mint.fresh("password"))
        visitor.fill("/signin", username=world.password, password=name)  # in the wrong fields
        visitor.fill("/signin", username=f"{name} {world.password}", password="")
        visitor.fill("/signin", username=name, password=world.password)
        visitor.open("/account/security/app")
        secret = self.canaries.add(
            "authenticator secret",
            visitor.document.xpath('//code[contains(@class,"key")]')[0]
            .text_content()
            .replace(" ", ""),
        )
        app = pyotp.TOTP(secret)
        visitor.fill("/security/app", code=world.password)
        visitor.fill("/security/app", code=app.now())
        if not self._recovery_codes(visitor):
            visitor.open("/account/security/recovery-codes").fill("/security/recovery-codes")
        codes = self._recovery_codes(visitor)
        assert codes, visitor.text
        visitor.open("/account/security/password")
        new = self.canaries.add("password", f"{mint.word()} {mint.word(5)}")
        for given in (
            {"password": new, "new_password": new, "repeated": new},
            {"password": world.password, "new_password": name, "repeated": name},
            {"password": world.password, "new_password": new, "repeated": new},
        ):
            if any(one.endswith("/security/password") for one in visitor.actions):
                visitor.fill("/security/password", **given)
        self._questions()
        self._contacts()
        visitor.open("/account/security")
        other = self.visitor().open("/signin")
        other.fill("/signin", username=name, password=new)
        other.fill("/signin/code", code=codes[0], remember="yes")
        other.open("/account/security").open("/account/apps").open("/account/contacts")
        third = self.visitor().open("/signin").fill("/signin", username=name, password=new)
        third.fill("/signin/code", code=new)
        lost = self.visitor().open("/signin/recovery-code")
        lost.fill("/signin/recovery-code", username=name, password=new, code=new)
        lost.fill("/signin/recovery-code", username=name, password=new, code=codes[1])
        other.open("/account/security")
        for action in ("/sessions/end", "/devices/forget", "/signout"):
            if any(one.endswith(action) for one in other.actions):
                other.fill(action)
                if action != "/signout":
                    other.open("/account/security")

    def _questions(self) -> None:
        visitor = self.signed_in("silas", "/account/security/questions")
        if "/account/confirm" in visitor.actions:
            visitor.fill("/account/confirm", password=self.world.password)
        options = visitor.document.xpath('//select[@name="question1"]/option/@value')
        chosen = [one for one in options if one]
        answers = [self.world.mint.fresh("security answer") for _ in range(3)]
        given = {f"question{n}": chosen[n] for n in (1, 2, 3)}
        given |= {f"answer{n}": answers[n - 1] for n in (1, 2, 3)}
        visitor.fill("/security/questions", **{**given, "question2": chosen[1]})
        if any(one.endswith("/security/questions") for one in visitor.actions):
            visitor.fill("/security/questions", **given)

    def _contacts(self) -> None:
        visitor = self.signed_in("silas", "/account/contacts/add")
        if "/account/confirm" in visitor.actions:
            visitor.fill("/account/confirm", password=self.world.password)
        for value in (self.world.password, f"{self.world.mint.fresh('telecom')}@"):
            visitor.open("/account/contacts/add").fill("/contacts/add", contact=value)
        for value in (self.world.mint.mail(), self.world.mint.phone()):
            visitor.open("/account/contacts/add").fill("/contacts/add", contact=value)
            visitor.fill("/contacts/prove", code=self.world.password)
            visitor.fill("/contacts/prove", code=self.received(value, "one-time code"))
        visitor.open("/account/contacts")
        (*_, last) = [one for one in visitor.document.forms if one.action.endswith("/remove")]
        visitor.send(last)

    # --- recovery --------------------------------------------------------------------------------

    def recoveries(self) -> None:
        """Forgotten user name, password and both; by questions; at the desk."""
        world, mint = self.world, self.world.mint
        mail = f"{world.usernames['oskar']}@people.example"
        for name in (mint.mail(), world.password, self.ehr_token):
            self.visitor().open("/recover?want=password").fill("/recover", name=name)
        self.visitor().open("/recover?want=username").fill("/recover", name=mail)
        visitor = self.visitor().open("/recover?want=both").fill("/recover", name=mail)
        visitor.fill("/recover/code", code=world.password)
        visitor.fill("/recover/code", code=self.received(mail, "one-time code"))
        new = self.canaries.add("password", f"{mint.word()} {mint.word(5)}")
        visitor.fill("/recover/password", new_password="short", repeated="short")
        visitor.fill("/recover/password", new_password=new, repeated=new)
        asked = f"{world.usernames['silas']}@people.example"
        visitor = self.visitor().open("/recover?want=password").fill("/recover", name=asked)
        visitor.fill("/recover/code", code=self.received(asked, "one-time code"))
        for _ in range(2):
            if any(one.endswith("/recover/questions") for one in visitor.actions):
                form = next(one for one in visitor.document.forms if "questions" in one.action)
                texts = form.xpath('.//input[@type="text"]/@name')
                visitor.send(form, **dict.fromkeys(texts, world.password))
        desk = self.visitor().open("/recover/desk")
        desk.fill("/recover/desk", code=new)
        visitor = self.visitor().open("/recover").fill("/recover", name=asked)
        visitor.fill("/recover/help")
        # What was forgotten, typed on: sign-in is refused until it slows down.
        visitor = self.visitor().open("/signin")
        for _ in range(8):
            if "/signin" in visitor.actions:
                visitor.fill("/signin", username=mail, password=mint.fresh("password"))

    # --- apps ------------------------------------------------------------------------------------

    def authorization(self, client_id: str, **changes: str) -> dict[str, str]:
        """What an app sends the browser with."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(_VERIFIER.encode()).digest())
        return {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": CALLBACK,
            "scope": _SCOPE,
            "state": "the-apps-own",
            "aud": f"{self.base}/fhir",
            "code_challenge": challenge.rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            **changes,
        }

    def code(self, client_id: str, who: str, **changes: str) -> str:
        """Have somebody approve an app; the code that it gets."""
        visitor = self.visitor()
        visitor.open("/oauth/authorize?" + urlencode(self.authorization(client_id, **changes)))
        return self._approved(visitor, who)

    def _approved(self, visitor: Visitor, who: str) -> str:
        for _ in range(8):
            if visitor.left:
                break
            (form, *_) = visitor.document.forms
            if "password" in form.fields:
                given = {"username": self.world.usernames[who], "password": self.world.password}
                visitor.send(form, **given)
            elif "record" in form.fields:
                (value, *_) = form.xpath('.//input[@name="record"]/@value')
                visitor.send(form, record=value)
            else:
                visitor.send(form, button="decision=approve")
        code = httpx.URL(visitor.left).params.get("code")
        assert code, (visitor.left, visitor.heading)
        return self.canaries.add("authorization code", code)

    def apps(self) -> None:
        """SMART launch, tokens, refresh, introspection, revocation, DPoP, PAR, registration."""
        web = self.world.clients["sample-web-app"]
        auth = (web["client_id"], web["client_secret"])
        code = self.code("sample-web-app", "mara")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": CALLBACK,
            "code_verifier": self.canaries.add("code verifier", _VERIFIER),
        }
        wrong = self.world.mint.fresh("client secret")
        assert self.token(form, auth=(auth[0], wrong)).status_code == 401
        assert self.token({**form, "code_verifier": code + code}, auth=auth).status_code == 400
        code = self.code("sample-web-app", "mara")
        got = self.token({**form, "code": code}, auth=auth)
        assert got.status_code == 200, got.text
        tokens = got.json()
        refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        again = self.token(refresh, auth=auth)
        assert again.status_code == 200, again.text
        for token in (tokens["access_token"], again.json()["access_token"], code, "x"):
            self.api.post("/oauth/introspect", data={"token": token}, auth=auth)
        bearer = {"Authorization": f"Bearer {again.json()['access_token']}"}
        for path in ("Patient", "Observation?code=8867-4", "Observation?_count=1", "Patient/juno"):
            self.api.get(f"/fhir/{path}", headers=bearer)
        self._person_ends_apps()
        self.api.post("/oauth/revoke", data={"token": again.json()["refresh_token"]}, auth=auth)
        self.api.get("/fhir/Patient", headers=bearer)
        assert self.token({**form, "code": code}, auth=auth).status_code == 400
        assert self.token(refresh, auth=auth).status_code == 400
        self._dpop()
        self._par(auth)
        self._registered()
        self._launched()
        self._refused()

    def taking_along(self) -> None:
        """The record as one file, at the portal and at the API; and for nobody else."""
        visitor = self.signed_in("mara", "/portal/record")
        visitor.fill("/portal/record", record=f"{PRACTICE}/Patient/mara")
        visitor.open("/portal/export").at("Take your record with you").fill("/portal/export")
        assert visitor.page.headers["content-type"] == "application/zip", visitor.page.headers
        visitor.open("/portal/export")
        (form,) = (one for one in visitor.document.forms if one.action == "/portal/export")
        visitor.send(form, form_token=self.world.mint.fresh("form token"))
        assert visitor.page.status_code == 403
        self.visitor().open("/portal/export")
        path = "Patient/mara/$export-self"
        assert self.api.get(f"/fhir/{path}").status_code == 401
        assert self.ehr("GET", path).status_code == 403
        asked = f"{path}?name={self.world.mint.name()}"
        assert self.ehr("GET", asked, typed=True).status_code in {400, 403}

    def _person_ends_apps(self) -> None:
        visitor = self.signed_in("mara", "/account/apps")
        (connection, *_) = [
            one
            for one in visitor.document.xpath("//main//a/@href")
            if one.startswith("/account/apps/")
        ]
        visitor.open(connection)
        visitor.fill("/change", until=self.world.password)
        visitor.open(connection).fill("/end")

    def _dpop(self) -> None:
        holder = Holder(SimpleNamespace(clock=time.time))
        self.canaries.add("private key", str(holder.key.as_dict(private=True)["d"]))
        code = self.code("sample-app", "mara")
        url = f"{self.base}/oauth/token"
        form = {
            "grant_type": "authorization_code",
            "client_id": "sample-app",
            "code": code,
            "redirect_uri": CALLBACK,
            "code_verifier": _VERIFIER,
        }

        def proof(url: str, method: str = "POST", **more: Any) -> str:
            made = holder.proof(method, url, jti=secrets.token_hex(12), **more)
            return self.canaries.add("DPoP proof", made)

        got = self.token(form, headers={"DPoP": proof(url)})
        assert got.status_code == 200, got.text
        token = got.json()["access_token"]
        at = f"{self.base}/fhir/Patient/mara"
        for made in (proof(at, "GET", token=token), proof(url), token):
            headers = {"Authorization": f"DPoP {token}", "DPoP": made}
            self.api.get(at, headers=headers)
        self.api.get(at, headers={"Authorization": f"Bearer {token}"})

    def _par(self, auth: tuple[str, str]) -> None:
        given = self.authorization("sample-web-app")
        pushed = self.api.post("/oauth/par", data=given, auth=auth)
        assert pushed.status_code == 201, pushed.text
        uri = self.canaries.add("request URI", pushed.json()["request_uri"])
        visitor = self.visitor()
        visitor.open("/oauth/authorize?" + urlencode({"client_id": auth[0], "request_uri": uri}))
        self._approved(visitor, "mara")
        self.visitor().open(
            "/oauth/authorize?" + urlencode({"client_id": auth[0], "request_uri": uri})
        )
        self.api.post("/oauth/par", data={**given, "scope": auth[1]}, auth=auth)

    def _registered(self) -> None:
        made = self.api.post(
            "/oauth/register",
            json={
                "client_name": "Some app",
                "redirect_uris": [CALLBACK],
                "token_endpoint_auth_method": "client_secret_basic",
                "scope": "patient/*.rs",
            },
        )
        body = made.json()
        self.canaries.add("client secret", body.get("client_secret"))
        held = self.canaries.add("registration token", body.get("registration_access_token"))
        for address in filter(None, [body.get("registration_client_uri")]):
            for token in (held, self.ehr_token):
                self.api.get(address, headers={"Authorization": f"Bearer {token}"})
            self.api.delete(address, headers={"Authorization": f"Bearer {held}"})
        wrong: Any
        for wrong in ({"redirect_uris": [held or "x"]}, {"scope": self.ehr_token}, []):
            self.api.post("/oauth/register", json=wrong)

    def _launched(self) -> None:
        bearer = {"Authorization": f"Bearer {self.ehr_token}"}
        for client in ("sample-staff-app", "portal-staff"):
            body = {"client_id": client, "patient": "Patient/mara"}
            made = self.api.post("/oauth/launch", json=body, headers=bearer)
            if made.status_code != 201:
                assert client == "portal-staff", made.text
                continue
            launch = self.canaries.add("launch", made.json()["launch"])
            if client == "portal-staff":
                iss = quote(f"{self.base}/fhir", safe="")
                visitor = self.visitor().open(f"/staff/launch?iss={iss}&launch={launch}")
                if "/signin" in visitor.actions:
                    visitor.fill(
                        "/signin",
                        username=self.world.usernames["rosalind"],
                        password=self.world.password,
                    )
                continue
            scope = "launch openid fhirUser offline_access user/Patient.rs user/Observation.rs"
            self.code(client, "rosalind", launch=launch, scope=scope)
            self.visitor().open(
                "/oauth/authorize?"
                + urlencode(self.authorization(client, launch=launch, scope=scope))
            )
        wrong: Any
        for wrong in ({"patient": self.ehr_token}, {"patient": f"Patient/{self.ehr_token}_"}, []):
            self.api.post("/oauth/launch", json=wrong, headers=bearer)

    def _refused(self) -> None:
        given = self.authorization("sample-app")
        for name in ("client_id", "scope", "aud", "code_challenge_method", "prompt", "launch"):
            wrong = {**given, name: self.ehr_token}
            self.visitor().open("/oauth/authorize?" + urlencode(wrong), typed=True)
        for name in ("redirect_uri", "max_age", "request_uri", "id_token_hint", "unknown"):
            wrong = {**given, name: self.world.password}
            self.visitor().open("/oauth/authorize?" + urlencode(wrong), typed=True)
        for form in (
            {"grant_type": self.ehr_token},
            {"grant_type": "authorization_code", "code": self.ehr_token, "client_id": "sample-app"},
            {"grant_type": "password", "username": "x", "password": self.world.password},
            {
                "grant_type": "refresh_token",
                "refresh_token": self.ehr_token,
                "client_id": "sample-app",
            },
            {
                "grant_type": "client_credentials",
                "client_id": self.ehr_token,
                "client_secret": self.world.password,
            },
            {
                "grant_type": "client_credentials",
                "client_assertion": self.ehr_token,
                "client_assertion_type": self.world.password,
            },
            {self.ehr_token: self.world.password},
        ):
            self.api.post("/oauth/token", data=form)
            self.api.post("/oauth/revoke", data=form)
            self.api.post("/oauth/introspect", data=form)
        self.api.post("/oauth/token", content=self.ehr_token)
        self.api.post("/oauth/token", json={"refresh_token": self.ehr_token})

    # --- staff -----------------------------------------------------------------------------------

    def staff_and_operations(self) -> None:
        """All staff pages, and the operations of EHRs."""
        staff = self.signed_in("rosalind", "/staff")
        if "/staff/practice" in staff.page.url.path:
            staff.fill("/staff/practice")
        self._staff_finds(staff)
        self._staff_invites(staff)
        self._staff_accounts(staff)
        self._staff_levels(staff)
        self._staff_writes(staff)
        self._staff_recovers()
        self._without_right()
        self._merge()
        for path in (
            "Person/mara/$portal-account",
            "Person/$portal-accounts",
            "Patient/mara/$portal-people",
        ):
            self.ehr("GET", path)
        for path, given in (
            ("Person/oskar/$require-credential-renewal", {"reason_Code": "staff-request"}),
            (
                "Person/oskar/$account-disable",
                {"reason_Code": "owner-request", "text_String": self.world.mint.fresh("note")},
            ),
            ("Person/oskar/$account-enable", {"reason_Code": "resolved"}),
            ("Person/oskar/$end-session", {"all_Boolean": True}),
            ("Person/oskar/$revoke-app", {"app_String": self.ehr_token}),
        ):
            self.ehr("POST", path, parameters(**given))
        person = {
            "resourceType": "Patient",
            "birthDate": self.world.newcomers[0].born,
            "name": [{"family": self.world.newcomers[0].family}],
        }
        body = {
            "resourceType": "Parameters",
            "parameter": [{"name": "resource", "resource": person}],
        }
        assert self.ehr("POST", "Patient/$match", body).status_code == 200

    def _staff_finds(self, staff: Visitor) -> None:
        who = self.world.newcomers[0]
        staff.open("/staff/patients")
        number = who.resource["identifier"][0]["value"]
        for given in (
            {"name": who.family},
            {"born": who.born},
            {"number": number},
            {"name": self.world.password},
            {"born": self.world.password},
            {},
        ):
            staff.open("/staff/patients").fill("/staff/patients", **given)
        for path in (
            f"/staff/patients/{who.id}",
            "/staff/patients/mara",
            "/staff/patients/juno",
            "/staff/patients/mara/activity",
            "/staff/patients/juno/as/juno-mother",
            "/staff/patients/nobody",
        ):
            staff.open(path)

    def _staff_invites(self, staff: Visitor) -> None:
        for kind, channel in (("self", "desk"), ("self", "mail"), ("caregiver", "paper")):
            who = self.newcomer()
            at = f"/staff/patients/{who.id}"
            staff.open(f"{at}/invite/{kind}")
            given: dict[str, Any] = {"channel": channel}
            if kind == "caregiver":
                names = staff.document.xpath("//main//form//input[@type='text']/@name")
                other = self.world.newcomer()
                values = {
                    "family": other.family,
                    "given": other.given,
                    "mail": other.mail,
                    "phone": other.phone,
                    "relationship": self.world.mint.fresh("note"),
                }
                given |= {k: v for k, v in values.items() if k in names} | {"who": "new"}
            staff.fill(f"/invite/{kind}", **given)
            if kind == "caregiver":  # without a right it was refused
                given |= {"basis": "consent-form", "end": "2039-12-31"}
                staff.fill(f"/invite/{kind}", **given)
            staff.at("To hand over" if channel != "mail" else "Portal of")
            self._shown(staff)
            staff.open(at)
            again = [one for one in staff.actions if one.endswith("/again")]
            if again:
                staff.fill(again[0])
                self._shown(staff)
                staff.open(at)
            if any(one.endswith("/print") for one in staff.actions):
                staff.fill("/print", format="html")
                self._sheet(staff)
                staff.open(at)
            if any(one.endswith("/back") for one in staff.actions):
                staff.fill("/back", reason=self.world.mint.fresh("note"))

    def _shown(self, staff: Visitor) -> None:
        kinds = {
            "Link": "link",
            "Security code": "security code",
            "Portal ID": "portal ID",
            "Word": "activation word",
            "Desk code": "desk code",
        }
        for name, value in staff.codes.items():
            if name in kinds:
                self.canaries.add(kinds[name], value.strip().rpartition("/")[2])
        path = staff.page.url.path
        if path.startswith(("/staff/shown", "/staff/accounts/recovery")):
            staff.open(path)  # once more: it was shown already

    def _sheet(self, staff: Visitor) -> None:
        for kind, pattern in _SIGNS.items():
            if kind != "one-time code":
                self.canaries.add(kind, *re.findall(pattern, staff.page.text))

    def _staff_accounts(self, staff: Visitor) -> None:
        who = self.world.newcomers[0]
        staff.open("/staff/accounts").fill("/staff/accounts", name=who.family[:6])
        staff.open("/staff/accounts").fill("/staff/accounts", name="", before=self.world.password)
        staff.open("/staff/accounts").fill("/accounts/export")
        assert b"," in staff.page.content
        for act in ("renew", "disable"):
            staff.open("/staff/accounts")
            (person, *_) = [
                one
                for one in staff.document.xpath('//input[@name="person"]/@value')
                if one.startswith("Person/dana")
            ]
            staff.fill("/accounts/preview", person=person, act=act)
            reasons = staff.document.xpath('//select[@name="reason"]/option/@value')
            staff.fill(
                "/accounts/change",
                text=self.world.mint.fresh("note"),
                **({"reason": reasons[-1]} if reasons else {}),
            )
        # Renewal forced at the next sign-in.
        self.signed_in("dana", "/account/apps")

    def _staff_levels(self, staff: Visitor) -> None:
        staff.open("/staff/levels")
        staff.fill("/levels/preview", **{"name-101": "night desk", "may-101": "view"})
        staff.fill("/levels/save")
        staff.open("/staff/levels").fill("/levels/import", document=self.world.password)
        staff.open("/staff/levels/history").open("/staff/levels/export").open("/staff/members")
        staff.fill("/staff/members")

    def _staff_writes(self, staff: Visitor) -> None:
        staff.open("/staff/messages").open("/staff/messages/one-time-code")
        staff.fill("/messages/one-time-code", button="do=preview")
        staff.fill("/messages/one-time-code", button="do=store", body=self.world.password)

    def _staff_recovers(self) -> None:
        """One half from the desk, the other to a contact; and one that needs a second member."""
        who = self.world.newcomers[0]
        found = self.ehr("GET", f"Person?patient=Patient/{who.id}").json()
        person = found["entry"][0]["resource"]["id"]
        desks = [self._at_desk(name) for name in ("rosalind", "cyril")]
        started = self._operate(desks[0], f"Person/{person}/$start-recovery", basis_Code="photo-id")
        desk = self.visitor().open("/recover/desk")
        desk.fill("/recover/desk", code=who.password)
        desk.fill("/recover/desk", code=started["desk-code"])
        desk.fill("/recover/code", code=started["desk-code"])
        desk.fill("/recover/code", code=self.received(who.mail, "one-time code"))
        new = self.canaries.add("password", f"{self.world.mint.word()} {self.world.mint.word(5)}")
        desk.fill("/recover/password", new_password=new, repeated=new)
        self._helped_on_the_pages()
        started = self._operate(desks[0], "Person/mara/$start-recovery", basis_Code="photo-id")
        given = {"recovery_String": started["recovery"]}
        self._operate(desks[1], "Person/mara/$approve-recovery", **given)
        self.visitor().open("/recover/desk").fill("/recover/desk", code=started["desk-code"])

    def _helped_on_the_pages(self) -> None:
        who = self.world.newcomers[2]
        for patient, needs_two in ((who.id, False), ("silas", False), ("mara", True)):
            at = f"/staff/patients/{patient}"
            staff = self.signed_in("rosalind", at)
            staff.fill("/accounts/recovery", basis="photo-id")
            assert "Desk code" in staff.codes, staff.text
            self._shown(staff)
            if needs_two:
                other = self.signed_in("cyril", at)
                other.fill("/accounts/recovery/approve")
                self._shown(other)

    def _at_desk(self, who: str) -> str:
        """The token of a member of staff."""
        form = {
            "grant_type": "authorization_code",
            "client_id": DESK,
            "code": self.code(DESK, who, scope="openid fhirUser user/Person.cruds"),
            "redirect_uri": CALLBACK,
            "code_verifier": _VERIFIER,
        }
        got = self.token(form)
        assert got.status_code == 200, got.text
        return str(got.json()["access_token"])

    def _operate(self, token: str, path: str, **given: Any) -> dict[str, Any]:
        bearer = {"Authorization": f"Bearer {token}"}
        answer = self.ehr("POST", path, parameters(**given), headers=bearer)
        assert answer.status_code in {200, 201}, answer.text
        return self._handed_over(answer)

    def _without_right(self) -> None:
        for who, path in (
            ("imke", "/staff/levels"),
            ("mara", "/staff"),
            ("femi", "/staff"),
            ("imke", "/staff/patients/mara/invite/self"),
        ):
            self.signed_in(who, path)

    def _merge(self) -> None:
        one, other = self.newcomer(), self.newcomer()
        self.invited(one.id, kind_Code="self", channel_Code="desk")
        given = {
            "source-patient_Reference": {"reference": f"Patient/{one.id}"},
            "target-patient_Reference": {"reference": f"Patient/{other.id}"},
        }
        seen = self.ehr("POST", "Patient/$merge", parameters(**given, preview_Boolean=True))
        assert seen.status_code == 200, seen.text
        accept = next(
            (p["valueString"] for p in seen.json()["parameter"] if p["name"] == "accept"), None
        )
        more = {"accept_String": accept} if accept else {}
        done = self.ehr("POST", "Patient/$merge", parameters(**given, **more))
        assert done.status_code == 200, done.text
        self.ehr("POST", "Patient/$merge", parameters(**given))
        self.ehr("POST", f"Patient/{one.id}/$undo-merge")

    # --- FHIR ------------------------------------------------------------------------------------

    def fhir_answers(self) -> None:
        """Reads, searches, history, batches; what fails among them."""
        who = self.world.newcomers[0]
        number = who.resource["identifier"][0]["value"]
        for search in (
            f"Patient?family={who.family}",
            f"Patient?birthdate={who.born}",
            f"Patient?identifier={number}",
            f"Patient?address-postalcode={who.postal_code}",
            f"Patient?email={quote(who.mail)}&_count=1",
        ):
            assert self.ehr("GET", search, typed=True).status_code == 200
        form = {"family:contains": "a", "_count": "1", "birthdate": "ge1900-01-01"}
        found = self.ehr("POST", "Patient/_search", data=form)
        self._next_pages(found)
        found = self.ehr(
            "POST",
            "Patient/_search",
            data={"family:contains": who.family[2:-2], "birthdate": who.born, "_count": "1"},
        )
        self._next_pages(found)
        for path in (
            "Patient/mara",
            "Patient/mara/_history",
            "Patient/mara/$everything",
            "Observation?patient=mara&_count=2",
            "AuditEvent?patient=mara",
            "metadata",
            "Communication?patient=mara",
            "Provenance",
            "_history",
        ):
            self.ehr("GET", path)
        entries = [
            {"request": {"method": "GET", "url": f"Patient?family={who.family}"}},
            {"request": {"method": "GET", "url": f"Patient?birthdate={self.ehr_token}"}},
            {
                "request": {"method": "POST", "url": "Patient"},
                "resource": {**who.resource, "id": "x", "birthDate": who.mail},
            },
            {"request": {"method": "DELETE", "url": f"Patient/{self.ehr_token}_"}},
        ]
        for kind in ("batch", "transaction"):
            self.ehr("POST", "", {"resourceType": "Bundle", "type": kind, "entry": entries})

    def _next_pages(self, found: httpx.Response) -> None:
        assert found.status_code == 200, found.text
        for _ in range(2):
            following = [one["url"] for one in found.json()["link"] if one["relation"] == "next"]
            if not following:
                return
            found = self.api.get(
                following[0], headers={"Authorization": f"Bearer {self.ehr_token}"}
            )

    # --- wrong inputs ----------------------------------------------------------------------------

    def wrong_inputs(self) -> None:
        """Secrets and people's data where they do not belong: fields, URLs, headers, bodies.

        Two things are not done, since they are what they look like: what stands in the place of a
        resource's id, or of a reference's, and has the form of one is an id, which the access log
        keeps; what stands in the place of an element's name and has the form of one is named in
        the answer, as FHIR R4 §3.1.0.1.5 wants it.
        """
        who = self.world.newcomers[0]
        token, password = self.ehr_token, self.world.password
        link = next(iter(sorted(self.canaries.of("link"))))
        phi = [who.family, who.born, who.mail, who.phone]
        for value in (token, who.family) if self.short else (token, password, link, *phi):
            one = quote(value, safe="")
            for path in (
                f"Patient?birthdate={one}",
                f"Patient?{one}=x",
                f"Patient?_count={one}",
                f"Patient?_sort={one}",
                f"Patient?_include={one}",
                f"Patient?_format={one}",
                f"Patient?family:{one}=x",
                f"Patient?_summary={one}",
                f"Patient?_since={one}",
                f"Observation?date={one}",
                f"Observation?value-quantity={one}",
                f"Patient?_has:{one}:patient:code=x",
                f"Observation?patient.{one}=x",
                f"Observation?patient:{one}=mara",
                f"Patient?_elements={one}",
                f"Patient?_page={one}",
                f"_history?_since={one}",
                f"Patient?_total={one}",
                f"{one}",
                f"{one}/x",
                f"Patient/{one}_",
                f"Patient/mara/{one}",
                f"Patient/mara/_history/{one}_",
                f"Patient/mara/${one}",
                f"${one}",
                f"Patient?access_token={one}",
            ):
                self.ehr("GET", path, typed=True)
            self.ehr("DELETE", f"Patient?identifier={one}", typed=True)
            self.api.get(f"/fhir/Patient?access_token={one}", extensions={"typed": True})
            for name in (
                "If-Match",
                "If-None-Match",
                "If-Modified-Since",
                "Prefer",
                "Accept",
                "If-None-Exist",
                "X-Request-Id",
                "Content-Type",
                "Accept-Language",
                "User-Agent",
                "X-Forwarded-For",
                "Host",
                "Origin",
                "Cookie",
                "Referer",
            ):
                try:
                    self.ehr("PUT", f"Patient/{who.id}", who.resource, headers={name: value})
                except (httpx.RemoteProtocolError, UnicodeEncodeError):
                    continue
            for scheme in ("Bearer", "DPoP", "Basic", value, "Negotiate"):
                self.api.get("/fhir/Patient", headers={"Authorization": f"{scheme} {value}"})
            self._wrong_bodies(value, who)
            for path in (
                f"/activate/{one}",
                f"/account/apps/{one}",
                f"/account/receipts/{one}",
                f"/help/{one}",
                f"/go/{one}",
                f"/staff/patients/{one}",
                f"/{one}",
                f"/static/{one}",
                f"/signin?then=/{one}",
                f"/signin?practice={one}",
                f"/recover?want={one}",
                f"/recover/code?recovery={one}",
                f"/account/confirm?then=/account/{one}",
                f"/account/apps?x={one}",
                f"/staff/launch?iss={one}&launch={one}",
                f"/activate/proof?x={one}",
                f"/oauth/{one}",
                f"/oauth/register/{one}",
                f"/.well-known/{one}",
                f"/health/{one}",
                f"/developers?x={one}",
                f"/staff/shown/{one}",
                f"/oauth/continue?request={one}",
                f"/oauth/consent?request={one}",
                f"/signin/code?request={one}",
                f"/staff/messages/{one}",
                f"/notify/{one}",
                f"/account/contacts/prove?contact={one}",
            ):
                self.visitor().open(path, typed=True)
            self.api.post("/notify/sms/status", json={"id": value, "status": value})
            self.api.post(
                "/notify/mail/bounce",
                json={"message_id": value},
                headers={"Fhir-Portal-Signature": f"t=1,v1={value}"},
            )
            for path in (
                "/signin",
                "/recover",
                "/register",
                "/activate/code",
                "/oauth/consent",
                "/account/security/password",
                "/staff/patients",
                "/activate/sheet",
            ):
                self.api.post(path, data={"form_token": value, "username": value, value: value})

    def _wrong_bodies(self, value: str, who: Newcomer) -> None:
        for body in (
            {**who.resource, "birthDate": value},
            {**who.resource, f"{value}!": "x"},
            {**who.resource, "gender": value},
            {**who.resource, "id": value},
            {**who.resource, "managingOrganization": {"reference": f"{value}_"}},
            {**who.resource, "managingOrganization": {"reference": f"Organization/{value}_"}},
            {
                **who.resource,
                "link": [{"other": {"reference": f"Patient/{value}_"}, "type": value}],
            },
            {**who.resource, "active": value},
            {**who.resource, "telecom": [{"system": value}]},
            {
                **who.resource,
                "text": {"status": "generated", "div": f"<div>{value}<script/></div>"},
            },
            {**who.resource, "name": value},
            {"resourceType": value},
            value,
            [value],
            {**who.resource, "extension": [{"url": value}]},
            {**who.resource, "meta": {"versionId": value, "lastUpdated": value}},
        ):
            self.ehr("PUT", f"Patient/{who.id}", body)
            self.ehr("POST", "Patient", body)
        for raw in (
            f'{{"{value}!": 1, "{value}!": 2}}',
            value,
            f"<Patient><{value}/></Patient>",
            f'{{"resourceType": "Patient", "birthDate": {value}',
        ):
            self.ehr("PUT", f"Patient/{who.id}", raw.encode())
            self.ehr(
                "PUT",
                f"Patient/{who.id}",
                raw.encode(),
                headers={"Content-Type": "application/fhir+xml"},
            )
        patch = [{"op": "replace", "path": f"/{value}", "value": value}]
        self.ehr(
            "PATCH",
            f"Patient/{who.id}",
            json.dumps(patch).encode(),
            headers={"Content-Type": "application/json-patch+json"},
        )
        for path in (
            "Patient/mara/$portal-invite",
            "Task/x/$invite-revoke",
            "Patient/$merge",
            "Patient/$match",
            "Person/mara/$account-disable",
            "Person/mara/$revoke-app",
            "Person/mara/$start-recovery",
        ):
            for given in (
                {f"{value}_String": "x"},
                {"kind_Code": value},
                {"reason_Code": value},
                {"kind_Code": "self", "channel_Code": value},
                {"kind_Code": "self", "contact_String": value},
                {"reason_String": value, "app_String": value},
                {"source-patient_Reference": {"reference": value}},
                {"kind_Code": "self", "lifetime-hours_Integer": value},
            ):
                self.ehr("POST", path, parameters(**given))
        for entry in (
            {"request": {"method": value, "url": "Patient"}},
            {"request": {"method": "GET", "url": value}},
            {
                "request": {"method": "PUT", "url": f"Patient/{who.id}", "ifMatch": value},
                "resource": who.resource,
            },
            {
                "fullUrl": value,
                "request": {"method": "POST", "url": "Patient", "ifNoneExist": f"{value}=x"},
                "resource": who.resource,
            },
        ):
            for kind in ("batch", "transaction"):
                self.ehr("POST", "", {"resourceType": "Bundle", "type": kind, "entry": [entry]})

    def what_came_back(self) -> None:
        """A mail and an SMS that arrived at nobody; staff are told."""
        name = self.evidence.mails[0].mail["Message-ID"]
        number = json.loads(self.evidence.sms[0][1])["id"]
        for path, said in (
            (MAIL_BOUNCE, {"message_id": name}),
            (SMS_STATUS, {"id": number, "status": "failed"}),
        ):
            body = json.dumps(said).encode()
            signed = signature(self.gateways[path], path, body, at=time.time())
            answer = self.api.post(path, content=body, headers={SIGNATURE: signed})
            assert answer.status_code == 204, answer.text

    def places_without_a_door(self) -> None:
        """Health, metrics, pages for everybody, what is not there."""
        for path in (
            "/health/live",
            "/health/ready",
            "/metrics",
            "/help",
            "/help/marrowbrook",
            "/about/licences",
            "/developers",
            "/brands",
            "/demo/outbox",
            "/docs",
            "/openapi.json",
            "/fhir/metadata",
            "/.well-known/openid-configuration",
            "/oauth/jwks",
            "/nothing",
            "/activate",
            "/account/apps",
            "/",
        ):
            self.visitor().open(path)
