from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from fhir_portal.commands.store import run_in_store
from fhir_portal.resources.store import PortalStore
from fhir_portal.smart.client import add_client
from tests.commands.running import refused, run, told

CALLBACK = "http://127.0.0.1:8765/callback"


pytestmark = pytest.mark.usefixtures("own_store")


def test_an_added_client_is_listed_and_shown() -> None:
    added = told("client", "add", "Tracker", "--redirect-uri", CALLBACK)
    assert added["type"] == "public"
    assert added["redirect_uris"] == [CALLBACK]
    assert told("client", "show", added["client_id"]) == added
    assert told("client", "list") == [added]
    assert added["client_id"] in run("client", "list").stdout


def test_a_secret_is_shown_when_it_is_made_and_never_again() -> None:
    made = run("client", "add", "Web", "--type", "confidential", "--redirect-uri", CALLBACK)
    assert "client_secret" in made.stdout
    assert "not shown again" in made.stderr
    listed = told("client", "list")[0]
    assert "client_secret" not in listed
    assert not any("secret_hash" in name for name in listed)
    first = told("client", "rotate-secret", listed["client_id"])["client_secret"]
    second = told("client", "rotate-secret", listed["client_id"])["client_secret"]
    assert first != second
    assert second not in run("client", "show", listed["client_id"]).output


def test_a_backend_client_has_a_practice_keys_and_permissions(tmp_path: Path) -> None:
    told("practice", "add", "elm", "Elm Street", "--zone", "America/Chicago")
    key = ECKey.generate_key("P-384", {"alg": "ES384"}, auto_kid=True).as_dict(private=False)
    file = tmp_path / "keys.json"
    backend = ("client", "add", "EHR", "--type", "backend", "--scope", "system/*.cruds")
    given = ("--practice", "elm", "--jwks", str(file), "--permission", "label")
    for content in ({"keys": [key]}, key):
        file.write_text(json.dumps(content))
        added = told(*backend, *given, "--permission", "grant-writing")
        assert added["practice"] == "elm"
        assert added["permissions"] == ["label", "grant-writing"]
        assert added["jwks"] == {"keys": [key]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["X"], "needs a redirect URI"),
        (["X", "--redirect-uri", "http://app.example/cb"], "loopback"),
        (["X", "--redirect-uri", CALLBACK, "--scope", "system/*.rs"], "backend"),
        (["X", "--redirect-uri", CALLBACK, "--scope", "patient/Patient.xyz"], "scope"),
        (["X", "--type", "backend", "--practice", "nowhere"], "no practice 'nowhere'"),
        (["X", "--type", "backend", "--jwks", "/nowhere.json"], "/nowhere.json"),
        (["X", "--redirect-uri", CALLBACK, "--permission", "fly"], "permissions"),
        (["X", "--redirect-uri", CALLBACK, "--permission", "introspect"], "practice"),
        (["X", "--redirect-uri", CALLBACK, "--scope", "user/*.rs"], "practices whose staff"),
        (["X", "--redirect-uri", CALLBACK, "--practice", "nowhere"], "no practice 'nowhere'"),
        (["X", "--type", "confidential", "--jwks-uri", "https://app.example/jwks"], "redirect"),
        (["X", "--redirect-uri", CALLBACK, "--jwks-uri", "https://10.0.0.1/"], "private_key_jwt"),
        (
            ["X", "--redirect-uri", CALLBACK, "--backchannel-revocation-uri", "https://10.0.0.1/"],
            "backchannel_revocation_uri",
        ),
        (["X", "--redirect-uri", CALLBACK, "--initiate-login-uri", "x"], "initiate_login_uri"),
        ([" ", "--redirect-uri", CALLBACK], "name"),
    ],
)
def test_what_cannot_be_registered_is_refused_with_the_reason(
    arguments: list[str], words: str
) -> None:
    assert words in refused("client", "add", *arguments)
    assert told("client", "list") == []


def test_an_id_is_taken_once() -> None:
    arguments = ("client", "add", "X", "--redirect-uri", CALLBACK, "--client-id", "one")
    told(*arguments)
    assert "a client 'one' already" in refused(*arguments)


def test_a_private_key_is_refused(tmp_path: Path) -> None:
    told("practice", "add", "elm", "Elm Street")
    file = tmp_path / "keys.json"
    key: dict[str, Any] = dict(ECKey.generate_key("P-384").as_dict(private=True))
    file.write_text(json.dumps({"keys": [key]}))
    arguments = ("client", "add", "EHR", "--type", "backend", "--scope", "system/*.rs")
    reason = refused(*arguments, "--practice", "elm", "--jwks", str(file))
    assert "public" in reason
    assert key["d"] not in reason


def test_a_client_is_disabled_and_enabled() -> None:
    told("client", "add", "X", "--redirect-uri", CALLBACK, "--client-id", "one")
    assert told("client", "disable", "one") == {"client_id": "one", "disabled": True, "ended": 0}
    assert "disabled" in run("client", "list").stdout
    told("client", "enable", "one")
    assert told("client", "show", "one")["disabled"] is False


@pytest.mark.parametrize("command", ["show", "approve", "rotate-secret", "disable", "enable"])
def test_an_unknown_client_is_said(command: str) -> None:
    assert "no client 'nobody'" in refused("client", command, "nobody")


def test_practices_are_added_once_and_listed() -> None:
    added = told("practice", "add", "elm", "Elm Street", "--zone", "America/Chicago")
    assert added == {"key": "elm", "name": "Elm Street", "zone": "America/Chicago"}
    assert told("practice", "list") == [added]
    assert "already" in refused("practice", "add", "elm", "Another")
    assert "time zone" in refused("practice", "add", "oak", "Oak Street", "--zone", "Nowhere/Else")
    assert "key" in refused("practice", "add", "Oak Street", "Oak Street")
    assert "shared" in refused("practice", "add", "shared", "Everybody")
    assert [one["key"] for one in told("practice", "list")] == ["elm"]


def test_what_an_app_has_of_its_own_is_kept_and_shown() -> None:
    added = told(
        *("client", "add", "Web", "--type", "confidential", "--redirect-uri", CALLBACK),
        *("--auth-method", "private_key_jwt", "--jwks-uri", "https://app.example/jwks"),
        *("--backchannel-revocation-uri", "https://app.example/ended"),
        *("--initiate-login-uri", "https://app.example/launch"),
        *("--require-pushed-authorization-requests", "--dpop-bound-access-tokens"),
    )
    assert added["jwks_uri"] == "https://app.example/jwks"
    assert added["backchannel_revocation_uri"] == "https://app.example/ended"
    assert added["initiate_login_uri"] == "https://app.example/launch"
    assert added["require_pushed_authorization_requests"]
    assert added["dpop_bound_access_tokens"]
    assert told("client", "show", added["client_id"]) == added


def test_keys_on_this_machine_are_for_development(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("client", "add", "Web", "--type", "confidential", "--redirect-uri", CALLBACK)
    own = ("--auth-method", "private_key_jwt", "--jwks-uri", "http://127.0.0.1:9/jwks")
    assert "jwks_uri" in refused(*arguments, *own)
    monkeypatch.setenv("FHIR_PORTAL_APPS_ON_LOOPBACK", "true")
    assert told(*arguments, *own)["jwks_uri"] == "http://127.0.0.1:9/jwks"


# --- approval, practice by practice --------------------------------------------------------------


def two_practices() -> None:
    told("practice", "add", "elm", "Elm Street")
    told("practice", "add", "oak", "Oak Street")


def an_app(*arguments: str, client_id: str = "chart") -> Any:
    return told(
        *("client", "add", "Chart", "--redirect-uri", CALLBACK, "--client-id", client_id),
        *arguments,
    )


def test_an_app_for_staff_names_its_practices() -> None:
    two_practices()
    added = an_app("--scope", "launch user/*.rs", "--practice", "oak", "--practice", "elm")
    assert added["approved_at"] == ["elm", "oak"]
    assert "practice" not in added
    assert added["awaits_review"] is False


def test_a_backend_and_who_introspects_belong_to_one_practice() -> None:
    two_practices()
    both = ("--practice", "elm", "--practice", "oak")
    backend = ("client", "add", "EHR", "--type", "backend", "--scope", "system/*.rs")
    keys = ("--jwks-uri", "https://ehr.example/jwks")
    assert "one practice" in refused(*backend, *keys, *both)
    added = told(*backend, *keys, "--practice", "elm", "--permission", "launch")
    assert (added["practice"], added["permissions"]) == ("elm", ["launch"])
    assert "approved_at" not in added
    web = ("client", "add", "Web", "--type", "confidential", "--redirect-uri", CALLBACK)
    assert "one practice" in refused(*web, "--permission", "introspect", *both)
    assert told(*web, "--permission", "introspect", "--practice", "elm")["practice"] == "elm"


def test_approvals_are_given_and_taken_back() -> None:
    two_practices()
    an_app("--scope", "launch user/*.rs", "--practice", "elm")
    assert told("client", "list", "--waiting") == []
    assert told("client", "approve", "chart", "--practice", "oak")["approved_at"] == ["elm", "oak"]
    shown = told("client", "withdraw", "chart", "--practice", "elm")
    assert (shown["approved_at"], shown["awaits_review"], shown["ended"]) == (["oak"], False, 0)
    assert "not approved" in refused("client", "withdraw", "chart", "--practice", "elm")
    shown = told("client", "withdraw", "chart", "--practice", "oak")
    assert "approved_at" not in shown
    assert shown["awaits_review"] is True
    assert [one["client_id"] for one in told("client", "list", "--waiting")] == ["chart"]
    assert "waits for review" in run("client", "list").stdout
    assert "practices whose staff" in refused("client", "approve", "chart")
    approved = told("client", "approve", "chart", "--practice", "oak")
    assert (approved["approved_at"], approved["awaits_review"]) == (["oak"], False)
    assert told("client", "list", "--waiting") == []


def test_who_does_not_wait_needs_no_approval() -> None:
    an_app()
    assert "does not wait" in refused("client", "approve", "chart")
    assert "no practice 'elm'" in refused("client", "approve", "chart", "--practice", "elm")
    assert "no practice 'elm'" in refused("client", "withdraw", "chart", "--practice", "elm")
    assert "--practice" in run("client", "withdraw", "chart").stderr
    two_practices()
    assert "no client 'nobody'" in refused("client", "withdraw", "nobody", "--practice", "elm")


def test_permissions_are_given_with_an_approval() -> None:
    two_practices()
    told(
        *("client", "add", "EHR", "--type", "backend", "--scope", "system/*.rs"),
        *("--client-id", "ehr", "--jwks-uri", "https://ehr.example/jwks", "--practice", "elm"),
    )
    assert told("client", "approve", "ehr", "--permission", "launch")["permissions"] == ["launch"]
    assert told("client", "approve", "ehr", "--practice", "elm")["permissions"] == ["launch"]
    assert "no other" in refused("client", "approve", "ehr", "--practice", "oak")


# --- the review of clients that registered themselves --------------------------------------------


def registers_itself(client_id: str = "rounds", **metadata: Any) -> None:
    async def work(store: PortalStore) -> None:
        await add_client(
            store,
            client_id=client_id,
            now=0,
            random=bytes,
            self_registered=True,
            **{
                "name": "Rounds",
                "type": "public",
                "redirect_uris": [CALLBACK],
                "scope": "user/*.rs",
                "awaits_review": True,
                **metadata,
            },
        )

    run_in_store(work)


def test_the_approval_names_what_was_looked_at() -> None:
    """Planted fault: without it the client is approved as it happens to be."""
    two_practices()
    registers_itself()
    approve = ("client", "approve", "rounds", "--practice", "elm")
    assert "fhir-portal client show rounds" in refused(*approve)
    shown = told("client", "show", "rounds")
    assert told("client", "list", "--waiting") == [shown]
    assert shown["fingerprint"] in run("client", "show", "rounds").stdout
    assert "fhir-portal client show rounds" in refused(*approve, "--reviewed", "0" * 40)
    assert told("client", "show", "rounds") == shown
    approved = told(*approve, "--reviewed", shown["fingerprint"])
    assert (approved["approved_at"], approved["awaits_review"]) == (["elm"], False)
    assert "client show rounds" in refused("client", "approve", "rounds", "--practice", "oak")


def test_an_app_that_waits_for_nobody_is_looked_at_before_it_gets_more() -> None:
    """Planted fault: only who waits is compared with what was seen."""
    two_practices()
    registers_itself(scope="patient/*.rs", awaits_review=False)
    more = ("client", "approve", "rounds", "--practice", "elm", "--permission", "introspect")
    assert "client show rounds" in refused(*more)
    seen = told("client", "show", "rounds")["fingerprint"]
    assert told(*more, "--reviewed", seen)["permissions"] == ["introspect"]


def test_what_an_operator_added_was_looked_at() -> None:
    two_practices()
    an_app()
    approve = ("client", "approve", "chart", "--practice", "elm")
    assert "registered otherwise" in refused(*approve, "--reviewed", "0" * 40)
    assert told(*approve)["approved_at"] == ["elm"]


SEEN: dict[str, Any] = {
    "auth_method": "private_key_jwt",
    "type": "confidential",
    "name": "Rounds 2",
    "scope": "user/Goal.rs",
    "redirect_uris": ["https://rounds.example/cb"],
    "jwks_uri": "https://rounds.example/jwks",
    "backchannel_revocation_uri": "https://rounds.example/ended",
    "require_pushed_authorization_requests": True,
    "dpop_bound_access_tokens": True,
    "metadata": {"contacts": ["help@rounds.example"], "policy_uri": "https://rounds.example/p"},
}


def test_all_that_is_reviewed_is_shown() -> None:
    """Planted fault: an address that the operator never sees."""
    registers_itself(**SEEN)
    text = run("client", "show", "rounds").stdout
    for value in SEEN.values():
        for one in value.values() if isinstance(value, dict) else [value]:
            for word in one if isinstance(one, list) else [one]:
                assert (json.dumps(word) if word is True else word) in text
    key = ECKey.generate_key("P-384", {"alg": "ES384"}, auto_kid=True).as_dict(private=False)
    keys = {**SEEN, "jwks_uri": None, "jwks": {"keys": [key]}}
    registers_itself("other", **keys)
    assert str(key["x"]) in run("client", "show", "other").stdout
