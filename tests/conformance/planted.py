"""Faults to plant: each takes a piece out of the server, as a careless change might.

A row names the items of the checklist whose tests must fail on it, the file, the text that is
there once, and what is put in its place. `tests.conformance.faults` plants them.
"""

# ruff: noqa: E501, ISC004 - the rows hold other files' text as it stands there

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Fault:
    """``breaks`` says in words what is wrong then; no two say the same.

    ``also`` are more places (file, old and new text), where a second check would hold.
    """

    items: tuple[str, ...]
    breaks: str
    file: str
    old: str
    new: str = ""
    also: tuple[tuple[str, str, str], ...] = ()

    @property
    def edits(self) -> tuple[tuple[str, str, str], ...]:
        """Each place: file, old and new text."""
        return ((self.file, self.old, self.new), *self.also)


def _at(file: str, *rows: tuple[str, str, str, str]) -> tuple[Fault, ...]:
    """Faults of one file: items, words, old and new text."""
    return tuple(
        Fault(tuple(items.split(", ")), words, file, old, new) for items, words, old, new in rows
    )


_SMART, _WEB, _GRANTS = "fhir_portal/smart", "fhir_portal/web", "fhir_portal/smart/grants"

DISCOVERY: Final = (
    *_at(
        f"{_WEB}/fhir.py",
        ("S1", "the SMART configuration is plain text", 'b"application/json",', 'b"text/plain",'),
        (
            "S37",
            "answers of the API name no origin",
            "            allowed = _encoded(found)\n",
            "",
        ),
    ),
    *_at(
        f"{_SMART}/discovery.py",
        (
            "S2, S3",
            "the grant types are not published",
            '        "grant_types_supported": list(GRANT_TYPES),\n',
            "",
        ),
        ("S3", "backend services are not named", '    "client_credentials",\n', ""),
        ("S4", "plain challenges are offered", "[S256]", '[S256, "plain"]'),
        ("S5", "no issuer is named", '"issuer": issuer.base,', '"issuer": None,'),
        ("S6", "a capability is no word", '    "permission-v2",\n)', "    2,\n)"),
        (
            "S7",
            "an endpoint is a relative address",
            'issuer.at("/oauth/introspect")',
            '"/oauth/introspect"',
        ),
        (
            "S8, S11",
            "the scopes are one text",
            '"scopes_supported": list(scopes)',
            '"scopes_supported": " ".join(scopes)',
        ),
        ("S9, S10", "authorize-post is not claimed", '    "authorize-post",\n', ""),
        ("S10", "the EHR launch is not claimed", '    "launch-ehr",\n', ""),
        (
            "S11",
            "the algorithms of assertions are those of id_tokens",
            '"token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS)',
            '"token_endpoint_auth_signing_alg_values_supported": ["RS256"]',
        ),
        (
            "S33",
            "another algorithm is published than id_tokens have",
            '"id_token_signing_alg_values_supported": ["RS256"]',
            '"id_token_signing_alg_values_supported": ["ES384"]',
        ),
    ),
    *_at(
        f"{_WEB}/cors.py",
        (
            "S12",
            "discovery is closed to other origins",
            'OPEN: Headers = [("access-control-allow-origin", "*")]',
            "OPEN: Headers = []",
        ),
        (
            "X12",
            "a preflight may not announce a token",
            '"authorization, content-type, accept, if-match',
            '"content-type, accept, if-match',
        ),
    ),
    *_at(
        f"{_WEB}/pages/browser.py",
        (
            "S13",
            "the cookies of https are those of http",
            'prefix = "__Host-" if issuer.is_https else ""',
            'prefix = ""',
        ),
    ),
    *_at(
        "fhir_portal/app.py",
        (
            "S13",
            "the API gives addresses without TLS",
            "base=issuer.fhir,\n            aliases",
            'base=issuer.fhir.replace("https:", "http:"),\n            aliases',
        ),
    ),
    *_at(
        "tests/conformance/test_tls.py",
        (
            "S13",
            "the run speaks old TLS too",
            "    server = uvicorn.Server(config)\n",
            "    config.load()\n"
            "    config.ssl.set_ciphers('ALL:@SECLEVEL=0')\n"
            "    config.ssl.minimum_version = ssl.TLSVersion.TLSv1\n"
            "    server = uvicorn.Server(config)\n",
        ),
        (
            "S13",
            "the run speaks no new TLS",
            "    server = uvicorn.Server(config)\n",
            "    config.load()\n"
            "    config.ssl.maximum_version = ssl.TLSVersion.TLSv1_2\n"
            "    server = uvicorn.Server(config)\n",
        ),
        (
            "S13",
            "the certificate of the run is somebody else's",
            "    config = uvicorn.Config(\n        whole.app,\n",
            '    file = certificate(tmp_path, "elsewhere")\n'
            "    config = uvicorn.Config(\n        whole.app,\n",
        ),
    ),
)

AUTHORIZATION: Final = (
    *_at(
        f"{_SMART}/id_token.py",
        (
            "S31, S32",
            "the id_token names another key",
            '"kid": self._exchange.setting.keys.kid',
            '"kid": "another"',
        ),
        ("S35", "the id_token is for nobody", '"aud": client.client_id,', '"aud": "nobody",'),
    ),
    *_at(
        f"{_SMART}/issuer.py",
        ("S14, X18", "a slash counts", 'aud.removesuffix("/")', "aud"),
        ("X18", "any number of slashes is ignored", 'aud.removesuffix("/")', 'aud.rstrip("/")'),
        ("X1", "a code lives for ten minutes", "code: int = 60", "code: int = 600"),
    ),
    *_at(
        f"{_WEB}/pages/authorize.py",
        (
            "S15",
            "a request cannot be posted",
            '        (AUTHORIZE, "POST", pages.authorize_by_form),\n',
            "",
        ),
        (
            "S15, G2",
            "a request comes by POST only",
            '        (AUTHORIZE, "GET", pages.authorize),\n',
            "",
        ),
        (
            "S16, parameter pollution",
            "of a posted request the address does not count",
            '[*parse_pairs(request.scope["query_string"]), *await posted(request)]',
            "await posted(request)",
        ),
    ),
    *_at(
        f"{_SMART}/server.py",
        (
            "S31",
            "there is no id_token",
            "(RequiredS256(required=True), IdToken())",
            "(RequiredS256(required=True),)",
        ),
        (
            "X2",
            "refusals never reach the app",
            "            error.redirect_uri = redirect_uri\n",
            "",
        ),
        (
            "X10",
            "an unknown token cannot be revoked",
            "loaded = await self._loader.token_shown(request, in_force_only=False)\n",
            "loaded = await self._loader.token_shown(request, in_force_only=False)\n"
            "        if loaded.token is None:\n"
            '            raise errors.InvalidRequest("no such token")\n',
        ),
        (
            "S52, G19",
            "a bad token has a client",
            "        return dict(response.body)\n\n    async def revoke",
            '        return {"client_id": None, **response.body}\n\n    async def revoke',
        ),
    ),
    *_at(
        f"{_SMART}/loading.py",
        (
            "S19, S42",
            "an assertion does not name the client",
            "names = (basic, signer.client_id if signer else None, form",
            "names = (basic, None, form",
        ),
        (
            "S52",
            "a refresh token that was used is active",
            "not in_force_only or presented.generation == family.generation",
            "True",
        ),
        (
            "S48",
            "no keys are read at an address",
            "if client.jwks_uri is None or client.disabled:",
            "if client.jwks_uri is not None or client.disabled:",
        ),
    ),
    *_at(
        f"{_SMART}/outcome.py",
        (
            "X5",
            "who failed by Basic is told nothing",
            'error.headers["WWW-Authenticate"] = CHALLENGE',
            "pass",
        ),
        (
            "S45",
            "any kind of assertion will do",
            "    uri = exchange.setting.issuer.at(TOKEN_PATH)\n",
            "    uri = exchange.setting.issuer.at(TOKEN_PATH)\n"
            '    if "client_assertion" in form:\n'
            '        form["client_assertion_type"] = (\n'
            '            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"\n'
            "        )\n",
        ),
    ),
    *_at(
        f"{_SMART}/client_auth/basic.py",
        (
            "S19",
            "the word Basic is expected in small letters",
            'scheme.lower() != "basic"',
            'scheme != "basic"',
        ),
    ),
    *_at(
        f"{_SMART}/approval.py",
        (
            "S17, X11",
            "the state is not sent back",
            '"state": request.state, "iss"',
            '"state": None, "iss"',
        ),
        (
            "G10",
            "what was ended counts as allowed",
            "            and family.ended is None\n            and family.until is None",
            "            and family.until is None",
        ),
    ),
    *_at(
        f"{_SMART}/authorization.py",
        (
            "X11",
            "the state is not sent back with an error",
            '            "state": error.state,\n',
            "",
        ),
        (
            "S14",
            "a nonce is demanded",
            '    prompts = parameters.get("prompt", "").split()\n',
            '    if "nonce" not in parameters:\n'
            '        raise errors.InvalidRequest("nonce is missing")\n'
            '    prompts = parameters.get("prompt", "").split()\n',
        ),
        (
            "G16",
            "any audience will do",
            'if not issuer.is_audience(parameters.get("aud", "")):',
            "if False:",
        ),
        (
            "G2",
            "long parameters are refused",
            "_MAX_PARAMETER: Final = 8000",
            "_MAX_PARAMETER: Final = 500",
        ),
        (
            "X2",
            "the redirect URI of an unknown client is believed",
            '        raise errors.InvalidClient("no such client is registered here")\n',
            '        raise errors.InvalidClient("no such client", redirect_uri=parameters["redirect_uri"])\n',
        ),
    ),
    *_at(
        f"{_SMART}/redirect.py",
        (
            "X2",
            "a redirect URI may begin like a registered one",
            "    if uri in registered:\n        return True\n",
            "    if any(uri.startswith(one) for one in registered):\n        return True\n",
        ),
        (
            "X2",
            "the path of a redirect URI does not count",
            "    if uri in registered:\n        return True\n",
            "    if origin_of(uri) in map(origin_of, registered):\n        return True\n",
        ),
    ),
    *_at(
        f"{_SMART}/pkce.py",
        (
            "G18, X3",
            "any verifier will do",
            "{S256: compare_s256_code_challenge}",
            "{S256: lambda verifier, challenge: True}",
        ),
        (
            "X3",
            "the method is not looked at",
            'if data.get("code_challenge_method") != S256:',
            "if False:",
        ),
    ),
)

TOKENS: Final = (
    *_at(
        f"{_GRANTS}/issue.py",
        (
            "S18, S26, S38, S51, G19, G20",
            "patient is a reference",
            'told["patient"] = granted.patient.partition("/")[2]',
            'told["patient"] = granted.patient',
        ),
        (
            "S20, S21, S38, S39",
            "expires_in is text",
            '"expires_in": round(granted.expires - granted.issued),',
            '"expires_in": str(round(granted.expires - granted.issued)),',
        ),
        (
            "S22, S53, S54, S56, G1, G3, G10",
            "the last scope is not named",
            '        "scope": granted.scope,\n',
            '        "scope": " ".join(granted.scope.split()[:-1]),\n',
        ),
        (
            "S23",
            "fhirContext is an array of text",
            'told["fhirContext"] = context',
            'told["fhirContext"] = [str(one) for one in context]',
        ),
        ("S23", "an empty fhirContext is told", "    if context:\n", "    if True:\n"),
        (
            "S38",
            "everybody is given a refresh token",
            "if OFFLINE_ACCESS in ScopeSet.parse(family.scope).identity:",
            "if True:",
        ),
    ),
    *_at(
        f"{_SMART}/launch_context.py",
        (
            "S26, G8",
            "need_patient_banner is text",
            '"need_patient_banner": self.need_patient_banner',
            '"need_patient_banner": str(self.need_patient_banner)',
        ),
    ),
    *_at(
        f"{_WEB}/oauth.py",
        (
            "S24, S40, X4",
            "answers may be kept",
            '[("cache-control", "no-store"), ("pragma", "no-cache")]',
            '[("cache-control", "no-cache")]',
        ),
        ("S20, S46", "tokens are 201", "return 201 if path == PAR_PATH else 200,", "return 201,"),
        (
            "S25",
            "the token endpoint answers no origin",
            'allowed = await cors.registered_only(self._reader, headers.get("origin"))',
            "allowed = []",
        ),
        (
            "S49",
            "a form has to say more than the token",
            '        parameters = once_each(parse_form(body, headers.get("content-type", "")))\n',
            '        parameters = once_each(parse_form(body, headers.get("content-type", "")))\n'
            "        if len(parameters) < 2:\n"
            '            raise InvalidRequest("the form says too little")\n',
        ),
    ),
    *_at(
        f"{_SMART}/exchange.py",
        (
            "S19, G13",
            "public clients are not served",
            '    "private_key_jwt",\n    "none",\n',
            '    "private_key_jwt",\n',
        ),
        (
            "S19",
            "no client authenticates by Basic",
            '    "client_secret_basic",\n    "client_secret_post",\n',
            '    "client_secret_post",\n',
        ),
    ),
    *_at(
        "fhir_portal/settings.py",
        (
            "S27, X17",
            "access tokens last two hours",
            "access_token_seconds: int = Field(900, ge=60, le=3600)",
            "access_token_seconds: int = Field(7200, ge=60)",
        ),
    ),
    *_at(
        f"{_SMART}/keys.py",
        (
            "S34",
            "the private half is published",
            "public = key.as_dict(private=False)",
            "public = key.as_dict(private=True)",
        ),
    ),
    *_at(
        "fhir_portal/access/policy.py",
        (
            "S36",
            "who acts for somebody cannot be read",
            'if letter != "r" or user is None or "fhirUser" not in auth.scopes.identity:',
            "if True:",
        ),
        (
            "G6, S41, G9",
            "a patient's token reads nothing",
            'if auth.context != "patient" or auth.record is None or auth.patient is None:',
            "if True:",
        ),
        (
            "G9, G15",
            "what nobody owns is refused",
            "    rule = OWNERS.get(resource_type)\n    if rule is None:\n",
            "    rule = OWNERS.get(resource_type)\n"
            "    if rule is None or isinstance(rule, Directory):\n",
        ),
        (
            "G22, C25",
            "a granular scope opens its type",
            "            found.append(parse_query(resource_type, scope.query))\n",
            "            return None\n",
        ),
        (
            "X6",
            "every token may do everything",
            "    if len(found) > _MAX_GRANULAR:\n        return ()\n",
            "    if not found:\n        return None\n",
        ),
    ),
    *_at(
        f"{_SMART}/scope.py",
        (
            "S38",
            "identity scopes cannot be asked for again",
            "return set(self.identity) >= set(other.identity) and all(",
            "return set(self.identity) > set(other.identity) and all(",
        ),
        (
            "S47, S53, G15",
            "read does not search",
            '_VERSION_1: Final = {"read": "rs",',
            '_VERSION_1: Final = {"read": "r",',
        ),
        ("S53", "letters come in any order", "(?=[cruds])c?r?u?d?s?", "[cruds]+"),
        (
            "S54, S55, G21, G22",
            "a value cannot name its system",
            r"\x3e-\x5b\x5d-\x7e]+",
            r"\x3e-\x5b\x5d-\x7b]+",
        ),
        (
            "S55, G21",
            "a granular scope is given for the whole type",
            "            query = self.query\n",
            "            query = other.query\n",
        ),
        ("S56", "online_access is unheard of", ' "online_access"}', "}"),
        (
            "G1, G2, G3",
            "a request names twenty types",
            "MOST_REQUESTED: Final = 150",
            "MOST_REQUESTED: Final = 20",
        ),
    ),
    *_at(
        f"{_SMART}/offer.py",
        (
            "S38, S39, G10, G11, G23",
            "what is ticked off is granted",
            "            if parent and len(children) in (0, len(offered.children)):\n",
            "            if len(children) in (0, len(offered.children)):\n",
        ),
        (
            "G23",
            "clinical tests are no part of their own",
            '        f"category={_OBSERVATION_CATEGORY}|procedure",\n',
            "",
        ),
        (
            "S38",
            "offline_access cannot be ticked off",
            "identity = (*self.fixed, OFFLINE_ACCESS) if OFFLINE_ACCESS in ticked else self.fixed",
            "identity = (*self.fixed, OFFLINE_ACCESS) if self.offline else self.fixed",
        ),
    ),
    *_at(
        f"{_SMART}/brands.py",
        ("S57", "the brands are a search result", '"type": "collection",', '"type": "searchset",'),
    ),
    *_at(
        f"{_GRANTS}/authorization_code.py",
        (
            "X1",
            "a code is good more than once",
            "        if found.family:\n",
            "        if False:\n",
        ),
        (
            "X1",
            "a code is any client's",
            "if found is None or found.client_id != client.client_id:",
            "if found is None:",
        ),
        (
            "X1",
            "a code is for any redirect URI",
            "        return self.record.redirect_uri\n",
            '        return ""\n',
        ),
        (
            "X11",
            "the nonce is forgotten",
            'nonce=request.payload.data.get("nonce"),',
            "nonce=None,",
        ),
    ),
    *_at(
        f"{_GRANTS}/refresh_token.py",
        (
            "S39",
            "a refresh may ask for more",
            "if not ScopeSet.parse(token.get_scope()).covers(asked):",
            "if False:",
        ),
        (
            "S41, G6, G14",
            "the new access token is not stored",
            "exchange.writes += [Replace(before, family), Insert(access_token)]",
            "exchange.writes += [Replace(before, family)]",
        ),
        (
            "X8",
            "a refresh token is good for ever",
            "if behind != 0 and not self._repeated:",
            "if False:",
        ),
    ),
    *_at(
        f"{_GRANTS}/client_credentials.py",
        (
            "S46",
            "a backend's token lasts an instant",
            "lifetime = exchange.setting.lifetimes.backend_token",
            "lifetime = 59",
        ),
    ),
    *_at(
        f"{_SMART}/client_auth/private_key_jwt.py",
        (
            "S42, S43, S46, G14",
            "an assertion has to say when it was made",
            '            jti={"essential": True},\n',
            '            jti={"essential": True},\n            iat={"essential": True},\n',
        ),
        (
            "S43, X7",
            "an assertion may last for ever",
            'if claims["exp"] > self._now + MAX_AGE_SECONDS + SKEW_SECONDS:',
            "if False:",
        ),
        (
            "X7",
            "a jti is new with each second",
            "{claims['sub']}:{jti}\"",
            "{claims['sub']}:{jti}:{self._now}\"",
        ),
        (
            "X7",
            "what the header says of its key is believed",
            "            key = key_for(header, resolve_key)\n"
            "            token = jwt.decode(assertion, key, algorithms=list(ALGORITHMS))\n",
            "            from joserfc.jwk import import_key, OctKey\n"
            '            alg = header["alg"]\n'
            "            key = resolve_key.keys[0]\n"
            '            if alg.startswith("HS"):\n'
            "                key = OctKey.import_key(key.as_pem(private=False))\n"
            "            token = jwt.decode(\n"
            "                assertion, key, algorithms=[alg]\n"
            "            )\n",
        ),
    ),
    *_at(
        f"{_SMART}/jwks.py",
        (
            "S48",
            "RS384 is not understood",
            '= {"RS384": "RSA", "ES384": "EC"}',
            '= {"ES384": "EC"}',
        ),
    ),
    *_at(
        f"{_SMART}/endpoints.py",
        (
            "S50, G19",
            "introspection tells another scope",
            '            "scope": record.scope,\n',
            '            "scope": "patient/*.rs",\n',
        ),
        (
            "S51, G19",
            "introspection tells no context",
            "payload |= launch_context(self.server, record) | launch_display(self.server, record)",
            "pass",
        ),
        (
            "S51",
            "introspection names the person to everybody",
            'if record.account is not None and "openid" in identity:',
            "if record.account is not None:",
        ),
        (
            "X9",
            "public clients introspect",
            '[m for m in TOKEN_AUTH_METHODS if m != "none"]',
            "list(TOKEN_AUTH_METHODS)",
        ),
    ),
    *_at(
        f"{_SMART}/errors.py",
        (
            "S41, G17, X1, X4, X8",
            "a bad grant is forbidden",
            '    error = "invalid_grant"\n',
            '    error, status = "invalid_grant", 403\n',
        ),
        (
            "S44, X4",
            "an unknown grant type is 401",
            '    error = "unsupported_grant_type"\n',
            '    error, status = "unsupported_grant_type", 401\n',
        ),
    ),
    *_at(
        "fhir_portal/fhir/errors.py",
        (
            "G5, X6, X15",
            "who has no token is forbidden",
            'status, code = 401, "login"',
            'status, code = 403, "login"',
        ),
        (
            "G11, X6",
            "what is forbidden is not found",
            'status, code = 403, "forbidden"',
            'status, code = 404, "forbidden"',
        ),
    ),
    *_at(
        f"{_WEB}/errors.py",
        (
            "X6",
            "the API asks for another scheme",
            """'Bearer realm="fhir"' + _because(error)""",
            """'Basic realm="fhir"' + _because(error)""",
        ),
    ),
    *_at(
        f"{_SMART}/revocation.py",
        (
            "G20, X1, X8, X10",
            "access tokens outlive their family",
            '    await _delete_access_tokens(transaction, "family", family)\n',
            "",
        ),
    ),
)

EHR: Final = (
    *_at(
        f"{_SMART}/launch.py",
        (
            "S28",
            "the EHR opens the app with a slash at the end of the base",
            'iss = quote(self._issuer.fhir, safe="")',
            'iss = quote(f"{self._issuer.fhir}/", safe="")',
        ),
    ),
    *_at(
        f"{_SMART}/grantable.py",
        (
            "S29, S30",
            "the scope launch is not granted",
            "            told = {LAUNCH, LAUNCH_PATIENT}\n",
            "            told = {LAUNCH_PATIENT}\n",
        ),
    ),
    *_at(
        f"{_SMART}/in_flight.py",
        (
            "S29",
            "a launch that nobody made is none",
            "            launch = await find_launch(self._store, kept[LAUNCH], client, now=self._clock())\n",
            "            try:\n"
            "                launch = await find_launch(\n"
            "                    self._store, kept[LAUNCH], client, now=self._clock()\n"
            "                )\n"
            "            except errors.InvalidRequest:\n"
            "                del kept[LAUNCH]\n",
        ),
    ),
    *_at(
        f"{_GRANTS}/issue.py",
        (
            "S30, G7, S36",
            "the visit is not told",
            "    if launched is not None and launched.encounter:\n",
            "    if False:\n",
        ),
        (
            "G1, G2, G4, G12",
            "one scope is of the other context",
            '        "scope": granted.scope,\n',
            '        "scope": granted.scope.replace("user/Patient", "patient/Patient")\n'
            '        if "user/" in granted.scope\n'
            '        else granted.scope.replace("patient/Patient", "user/Patient"),\n',
        ),
        (
            "S23",
            "what the EHR says of the context is not told",
            "    context = list(launched.fhir_context) if launched is not None else []\n",
            "    context: list[dict[str, Any]] = []\n",
        ),
    ),
    *_at(
        f"{_SMART}/launch_context.py",
        (
            "S26, G8",
            "the style of the EHR is not told",
            '"smart_style_url": self.smart_style_url}',
            '"smart_style_url": None}',
        ),
    ),
    *_at(
        "fhir_portal/access/policy.py",
        (
            "S31, S36",
            "a Practitioner cannot be read by themselves",
            'if letter != "r" or name != resource_type or "fhirUser" not in auth.scopes.identity:',
            "if True:",
        ),
        (
            "G6, G7, G9, G12, S36",
            "staff see no records",
            "    if resource_type not in OF_STAFF:\n",
            "    if resource_type in OF_STAFF:\n",
        ),
    ),
    *_at(
        "fhir_portal/access/writes.py",
        (
            "G12",
            "patient scopes of staff are not granted",
            "        if of_staff:\n            return _of_staff(resource_type)\n",
            '        if of_staff:\n            return ""\n',
        ),
    ),
)

ATTACKS: Final = (
    *_at(
        f"{_WEB}/pages/signin.py",
        (
            "open redirect",
            "a sign-in leads to any address",
            'return path if _LOCAL.fullmatch(path) and not path.startswith("//") else ""',
            "return path",
        ),
    ),
    *_at(
        f"{_WEB}/pages/authorize.py",
        (
            "open redirect",
            "whoever registered itself has everybody redirected",
            "        if error.unchecked_app is None:\n",
            "        if True:\n",
        ),
    ),
    *_at(
        f"{_SMART}/authorization.py",
        (
            "open redirect",
            "refusals go to any redirect URI",
            '        raise errors.InvalidRequest("redirect_uri is not registered for this client")\n',
            "        raise errors.InvalidRequest(\n"
            '            "not registered", redirect_uri=parameters["redirect_uri"]\n'
            "        )\n",
        ),
        ("mix-up", "errors do not name the issuer", '            "iss": issuer.base,\n', ""),
        (
            "parameter pollution",
            "of what comes twice the first counts",
            "    if repeated:\n",
            "    if False:\n",
        ),
    ),
    *_at(
        f"{_SMART}/outcome.py",
        (
            "jti replay, race on a client assertion",
            "an assertion that was used is used again",
            "            raise assertion_used() from None\n",
            "            return\n",
        ),
        (
            "jti replay, race on a DPoP proof",
            "a proof that was used is used again",
            "            raise used_before() from None\n",
            "            return\n",
        ),
        (
            "race on a code",
            "who comes second is not noticed",
            "            elif not await transaction.replace(change.old, change.new):\n"
            "                raise _Lost\n",
            "            else:\n                await transaction.put(change.new)\n",
        ),
    ),
    *_at(
        f"{_SMART}/in_flight.py",
        (
            "race on a pushed request",
            "a pushed request is good for everybody who comes at once",
            "pushed is not None and not await transaction.delete(PushedRequest, pushed.key)",
            "False",
        ),
    ),
    *_at(
        f"{_SMART}/approval.py",
        (
            "mix-up",
            "codes do not name the issuer",
            '"state": request.state, "iss": issuer.base}',
            '"state": request.state}',
        ),
        (
            "race on a launch",
            "a launch is good for everybody who comes at once",
            "way.launch is not None and not await transaction.delete(Launch, way.launch.key)",
            "False",
        ),
        (
            "race on a consent",
            "a request is answered as often as one likes",
            '                raise errors.InvalidRequest("This request was answered before.")\n'
            "            if stored != request:\n",
            "                stored = request\n            if stored != request:\n",
        ),
    ),
    *_at(
        f"{_GRANTS}/authorization_code.py",
        (
            "code injection",
            "a code is whoever's has it",
            "if found is None or found.client_id != client.client_id:",
            "if found is None:",
        ),
    ),
    *_at(
        f"{_GRANTS}/refresh_token.py",
        (
            "race on a refresh token",
            "who asks again at the same moment is a thief",
            "self._repeated = behind == 1 and age <= exchange.setting.lifetimes.refresh_repeat",
            "self._repeated = False",
        ),
    ),
    *_at(
        f"{_SMART}/pkce.py",
        (
            "code injection",
            "a verifier is not compared",
            "{S256: compare_s256_code_challenge}",
            "{S256: lambda verifier, challenge: True}",
        ),
    ),
    *_at(
        f"{_WEB}/pages/browser.py",
        (
            "cross-site request forgery",
            "forms of any origin are taken",
            "elsewhere = self._is_from_elsewhere(request)",
            "elsewhere = False",
        ),
        (
            "cross-site request forgery",
            "the hidden field of a form is not compared",
            "not hmac.compare_digest(sent.encode(), expected.encode())",
            "False",
        ),
    ),
    *_at(
        f"{_WEB}/pages/render.py",
        (
            "clickjacking",
            "pages may be framed",
            "frame-ancestors 'none'; form-action",
            "form-action",
        ),
    ),
    *_at(
        "fhir_portal/accounts/sessions.py",
        (
            "session fixation",
            "a sign-in keeps the session it began in",
            "                opened.visitor.session, owes_terms=bool(",
            "                opened.visitor.session, key=before.key, owes_terms=bool(",
        ),
    ),
    *_at(
        "fhir_portal/accounts/sessions.py",
        (
            "session fixation",
            "who waits for a code keeps the session of before",
            "            await transaction.delete(Session, before.key)\n"
            "            await transaction.insert(opened.visitor.session)\n\n"
            "        await self.store.transact(rotate)\n        return opened\n\n"
            "    def confirmed",
            "            await transaction.put(\n"
            "                msgspec.structs.replace(opened.visitor.session, key=before.key)\n"
            "            )\n"
            "            await transaction.put(opened.visitor.session)\n\n"
            "        await self.store.transact(rotate)\n        return opened\n\n"
            "    def confirmed",
        ),
    ),
    *_at(
        f"{_SMART}/client_keys.py",
        (
            "JWKS poisoning",
            "what was read once is good for ever",
            "        if self._is_fresh(held) and not self._must_ask(held, kid) and held.jwks is not None:\n",
            "        if held.jwks is not None:\n",
        ),
        (
            "JWKS poisoning",
            "all addresses share one set",
            "        held = self._held.setdefault(url, _Held())\n        self._held.move_to_end(url)\n",
            '        url = "every"\n'
            "        held = self._held.setdefault(url, _Held())\n        self._held.move_to_end(url)\n",
        ),
    ),
    *_at(
        f"{_SMART}/client_auth/private_key_jwt.py",
        (
            "JWKS poisoning",
            "a key in the header is the client's",
            "            key = key_for(header, resolve_key)\n",
            '            if isinstance(header.get("jwk"), dict):\n'
            "                from joserfc.jwk import import_key\n"
            '                key = import_key(header["jwk"])\n'
            "            else:\n"
            "                key = key_for(header, resolve_key)\n",
        ),
        (
            "algorithm confusion",
            "any algorithm is checked with the registered key",
            "            key = key_for(header, resolve_key)\n"
            "            token = jwt.decode(assertion, key, algorithms=list(ALGORITHMS))\n",
            "            from joserfc.jwk import OctKey\n"
            '            alg = header["alg"]\n'
            "            key = resolve_key.keys[0]\n"
            '            if alg.startswith("HS"):\n'
            "                key = OctKey.import_key(key.as_pem(private=False))\n"
            "            token = jwt.decode(assertion, key, algorithms=[alg])\n",
        ),
        (
            "algorithm confusion",
            "a public key is a shared secret",
            "            header = jws.extract_compact(assertion.encode()).headers()\n"
            "            key = key_for",
            "            header = jws.extract_compact(assertion.encode()).headers()\n"
            '            if header["alg"].startswith("HS"):\n'
            "                import base64, hmac\n"
            "                signed, _, proof = assertion.rpartition('.')\n"
            "                public = resolve_key.keys[0]\n"
            "                pem = public.as_pem(private=False)\n"
            "                digest = 'sha' + header['alg'][2:]\n"
            "                made = hmac.digest(pem, signed.encode(), digest)\n"
            "                if base64.urlsafe_b64encode(made).rstrip(b'=').decode() == proof:\n"
            "                    body = jws.extract_compact(assertion.encode()).payload\n"
            "                    self.verify_claims(json.loads(body))\n"
            "                    return json.loads(body)\n"
            "            key = key_for",
        ),
        (
            "clock skew",
            "no clock may be wrong",
            "SKEW_SECONDS: Final = 30",
            "SKEW_SECONDS: Final = 0",
        ),
        (
            "clock skew",
            "an hour's wrong clock is tolerated",
            "SKEW_SECONDS: Final = 30",
            "SKEW_SECONDS: Final = 3600",
        ),
    ),
    *_at(
        f"{_SMART}/dpop.py",
        (
            "clock skew",
            "a proof may be of any time",
            "    if not now - MAX_AGE_SECONDS - SKEW_SECONDS < iat <= now + SKEW_SECONDS:\n",
            "    if False:\n",
        ),
    ),
    *_at(
        f"{_WEB}/form.py",
        (
            "parameter pollution",
            "of what a form says twice the last counts",
            "    if len(parameters) != len(pairs):\n",
            "    if False:\n",
        ),
    ),
    *_at(
        f"{_WEB}/oauth.py",
        (
            "parameter pollution",
            "of a header that comes twice the last counts",
            "    if len(set(names)) < len(names):\n",
            "    if False:\n",
        ),
    ),
    *_at(
        f"{_SMART}/client_configuration.py",
        (
            "race on a registration token",
            "a registration token is good for everybody who comes at once",
            "        if not await transaction.replace(before, after):\n"
            '            raise InvalidToken("the registration was changed at this moment")\n'
            "        await keep_addresses(transaction, after)\n        if _ends_tokens",
            "        await transaction.put(after)\n"
            "        await keep_addresses(transaction, after)\n        if _ends_tokens",
        ),
    ),
    *_at(
        "fhir_portal/accounts/recovery_codes.py",
        (
            "race on a recovery code",
            "a recovery code is good for everybody who comes at once",
            "            if now is None or now.hashes.get(code[0]) != stored:\n",
            "            if now is None:\n",
        ),
    ),
    *_at(
        "fhir_portal/accounts/totp.py",
        (
            "race on a one-time password",
            "a one-time password is good for everybody who comes at once",
            "            if not await transaction.replace(totp, used):\n                raise Spent\n",
            "            await transaction.put(used)\n",
        ),
    ),
    *_at(
        "fhir_portal/accounts/passkeys.py",
        (
            "race on a passkey challenge",
            "a challenge is answered as often as one likes",
            "    if await transaction.get(PasskeyChallenge, asked.key) != asked:\n        raise Spent\n",
            "",
        ),
    ),
)

BOUNDARY: Final = (
    Fault(
        ("X8",),
        "a refresh token is any client's",
        f"{_GRANTS}/refresh_token.py",
        "if family.client_id != self.request.client.client_id or family.ended is not None:",
        "if family.ended is not None:",
        (
            (
                f"{_SMART}/exchange.py",
                "        return self.record.client_id == client.record.key\n",
                "        return True\n",
            ),
        ),
    ),
    Fault(
        ("X15", "X17"),
        "a token outlives its time",
        f"{_SMART}/token.py",
        "now < found.expires",
        "now < found.expires + 86_400",
        (
            (
                "fhir_portal/access/authenticate.py",
                "        if now >= found.expires or _ended(found, now):\n",
                "        if _ended(found, now):\n",
            ),
        ),
    ),
    *_at(
        "fhir_portal/embedded/query.py",
        (
            "X14, G6",
            "whose record it is does not count",
            "    if visible.record is not None:\n",
            "    if False:\n",
        ),
    ),
)

PLANTED: Final[tuple[Fault, ...]] = (
    *DISCOVERY,
    *AUTHORIZATION,
    *TOKENS,
    *EHR,
    *BOUNDARY,
    *ATTACKS,
)
