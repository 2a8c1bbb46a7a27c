from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from fhir_portal.settings import InvalidSettings, Settings, hand_down, load


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("FHIR_PORTAL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "portal.toml"
    path.write_text("")
    monkeypatch.setenv("FHIR_PORTAL_SETTINGS", str(path))
    return path


def assert_refused(*words: str, **given: Any) -> None:
    with pytest.raises(InvalidSettings) as refusal:
        load(**given)
    for word in words:
        assert word in str(refusal.value)


def test_nothing_set_is_the_demo_on_this_machine() -> None:
    settings = load()
    assert settings.base_url == "http://127.0.0.1:8000"
    assert settings.aliases == ("http://localhost:8000",)
    assert settings.data == Path("var/portal.db")
    assert settings.mongodb_uri is None
    assert settings.mongodb_transactions
    assert settings.access_token_seconds == 900
    assert settings.max_body_bytes == 16 * 1024 * 1024
    assert settings.max_transaction_bytes == 64 * 1024 * 1024


def test_without_a_base_url_the_addresses_follow_the_port() -> None:
    settings = load(port=9000)
    assert settings.base_url == "http://127.0.0.1:9000"
    assert settings.aliases == ("http://localhost:9000",)


def test_a_deployment_has_no_aliases_that_it_did_not_name() -> None:
    assert load(base_url="https://portal.example.org", port=9000).aliases == ()


def test_the_base_url_loses_its_trailing_slash() -> None:
    assert load(base_url="https://Portal.example.org/").base_url == "https://portal.example.org"


def test_aliases_are_separated_by_spaces_or_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIR_PORTAL_ALIASES", "https://a.example.org, https://b.example.org/")
    assert load().aliases == ("https://a.example.org", "https://b.example.org")


def test_command_line_beats_environment_beats_file_beats_default(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text('port = 1001\nworkers = 2\nlog_level = "error"\n')
    monkeypatch.setenv("FHIR_PORTAL_PORT", "1002")
    monkeypatch.setenv("FHIR_PORTAL_WORKERS", "3")
    settings = load(port=1003, workers=None)
    assert (settings.port, settings.workers, settings.log_level) == (1003, 3, "error")
    assert settings.host == "127.0.0.1"


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIR_PORTAL_MONGODB_URI", "")
    assert load().mongodb_uri is None


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load().port = 1  # type: ignore[misc] # what mypy sees too


@pytest.mark.parametrize(
    "url",
    [
        "portal.example.org",
        "ftp://portal.example.org",
        "https://",
        "https://portal.example.org/fhir",
        "https://portal.example.org?x=1",
        "https://user:word@portal.example.org",
        "https://portal.example.org:port",
        "http://portal.example.org",
        "http://127.0.0.1.example.org",
    ],
)
def test_a_base_url_that_cannot_be_an_issuer_is_refused(url: str) -> None:
    assert_refused("base_url: ", base_url=url)


@pytest.mark.parametrize("url", ["http://localhost:80", "http://[::1]:80", "http://a.localhost"])
def test_loopback_addresses_may_go_without_tls(url: str) -> None:
    assert load(base_url=url).base_url == url


def test_a_bad_value_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FHIR_PORTAL_PORT", "eighty")
    monkeypatch.setenv("FHIR_PORTAL_MONGODB_DRIVER", "other")
    assert_refused("FHIR_PORTAL_PORT: Input should be a valid integer")
    assert_refused("FHIR_PORTAL_MONGODB_DRIVER: Input should be 'motor' or 'pymongo'")


def test_an_unknown_variable_is_refused_with_what_it_may_have_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FHIR_PORTAL_BASEURL", "https://portal.example.org")
    assert_refused("FHIR_PORTAL_BASEURL: no such setting; did you mean FHIR_PORTAL_BASE_URL?")


def test_the_variables_of_the_test_suite_mean_nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIR_PORTAL_TEST_DATA", "elsewhere")
    assert load() == Settings()


@pytest.mark.parametrize("transactions", [True, False])
def test_what_is_handed_down_is_what_the_workers_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, transactions: bool
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    settings = load(
        base_url="https://portal.example.org",
        aliases=("https://a.example.org", "https://b.example.org"),
        data=tmp_path / "portal.db",
        mongodb_uri="mongodb://portal:secret@db/portal",
        mongodb_driver="pymongo",
        mongodb_transactions=transactions,
        workers=2,
    )
    hand_down(settings)
    assert load() == settings


def test_a_transaction_may_not_be_smaller_than_a_body() -> None:
    assert_refused("max_transaction_bytes", max_transaction_bytes=2048)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port = 'x'", "port: 'x' is not of type 'integer'"),
        ("port = 70000", "port: 70000 is greater than the maximum"),
        ("aliases = [1]", "aliases.0: 1 is not of type 'string'"),
        ("log_level = 'loud'", "log_level: 'loud' is not one of"),
        ("prot = 1", "prot: no such setting; did you mean port?"),
        ("[zzz]", "zzz: no such setting"),
        ("port =", "not TOML"),
        ("base_url = 'http://portal.example.org'", "base_url: must be https"),
    ],
)
def test_a_settings_file_is_refused_by_key(settings_file: Path, text: str, words: str) -> None:
    settings_file.write_text(text)
    assert_refused(words)


def test_every_wrong_key_of_a_file_is_named_at_once(settings_file: Path) -> None:
    settings_file.write_text("port = 'x'\nworkers = 0\nzzz = 1\n")
    assert_refused("port", "workers", "zzz", str(settings_file))


def test_a_missing_settings_file_is_refused(settings_file: Path) -> None:
    settings_file.unlink()
    assert_refused("FHIR_PORTAL_SETTINGS", "No such file")


def test_the_database_password_is_never_shown(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text("mongodb_uri = ['hunter2']")
    with pytest.raises(InvalidSettings) as in_file:
        load()
    monkeypatch.setenv("FHIR_PORTAL_MONGODB_URI", "postgres://user:hunter2@db")
    settings_file.write_text("")
    with pytest.raises(InvalidSettings) as in_environment:
        load()
    assert "hunter2" not in str(in_file.value) + str(in_environment.value)
    assert "hunter2" not in repr(load(mongodb_uri="mongodb://user:hunter2@db"))


def test_the_secret_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "new" / "portal.db")
    key = settings.secret_key()
    file = tmp_path / "new" / "secret.key"
    assert len(key) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert settings.secret_key() == key
    assert [path.name for path in file.parent.iterdir()] == ["secret.key"]
    assert key.hex() not in repr(settings)


def test_processes_that_start_together_get_the_same_secret_key(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "portal.db")
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert len(set(pool.map(Settings.secret_key, [settings] * 16))) == 1


@pytest.mark.parametrize("text", ["", "zz", "ab" * 31, "ab" * 33, "ÄÖ"])
def test_a_file_that_holds_no_secret_key_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(InvalidSettings, match="64 hexadecimal digits"):
        Settings(secret_key_file=file).secret_key()


def test_demo_file_and_outbox_lie_beside_the_data(tmp_path: Path) -> None:
    settings = load(data=tmp_path / "portal.db")
    assert settings.demo_file == tmp_path / "demo.json"
    assert settings.outbox_folder == tmp_path / "outbox"
    assert load(outbox=tmp_path / "mail").outbox_folder == tmp_path / "mail"


# ---------------------------------------------------------------- mail and SMS


def test_mail_needs_a_sender_and_encryption_that_leaves_this_machine() -> None:
    assert_refused("smtp_host needs smtp_from", smtp_host="mail.hill.example")
    given = {"smtp_host": "mail.hill.example", "smtp_from": "portal@hill.example"}
    assert load(**given).smtp_tls == "starttls"
    assert_refused("smtp_tls", smtp_tls="none", **given)
    assert load(**given | {"smtp_host": "127.0.0.1"}, smtp_tls="none").smtp_port == 587
    assert_refused("go together", smtp_username="portal", **given)
    assert_refused("go together", smtp_password=SecretStr("secret"), **given)


def test_direct_needs_a_sender_and_encryption_that_leaves_this_machine() -> None:
    assert_refused("direct_host needs direct_from", direct_host="hisp.example")
    given = {"direct_host": "hisp.example", "direct_from": "portal@direct.hill.example"}
    assert load(**given).direct_port == 587
    assert_refused("direct_tls", direct_tls="none", **given)
    assert load(**given | {"direct_host": "127.0.0.1"}, direct_tls="none").direct_from
    assert_refused("go together", direct_username="portal", **given)


@pytest.mark.parametrize(
    "address",
    ["portal", "Portal <portal@hill.example>", "a@hill.example, b@hill.example", "a@b\r\nBcc: x"],
)
def test_a_sender_is_an_address_alone(address: str) -> None:
    assert_refused("smtp_from", "must be a mail address", smtp_from=address)
    assert_refused("smtp_reply_to", "must be a mail address", smtp_reply_to=address)
    assert_refused("direct_from", "must be a mail address", direct_from=address)


def test_a_gateway_has_an_address_and_a_secret() -> None:
    secret = SecretStr("s" * 32)
    assert load(sms_url="https://sms.hill.example/send", sms_secret=secret).sms_url is not None
    assert_refused("must be https", sms_url="http://sms.hill.example/send", sms_secret=secret)
    assert_refused("must be an http", sms_url="ftp://sms.hill.example/", sms_secret=secret)
    assert_refused("go together", sms_url="https://sms.hill.example/send")
    assert_refused(
        "at least 32", sms_url="https://sms.hill.example/send", sms_secret=SecretStr("short")
    )


def test_secrets_are_never_shown_and_are_handed_down(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", dict(os.environ))
        settings = load(smtp_username="portal", smtp_password=SecretStr("canary-of-mail"))
        assert "canary" not in repr(settings)
        hand_down(settings)
        assert load() == settings
    settings_file.write_text('smtp_password = ["canary-of-mail"]')
    with pytest.raises(InvalidSettings) as refusal:
        load()
    assert "smtp_password: must be text" in str(refusal.value)
    assert "canary" not in str(refusal.value)


def test_the_demos_outbox_is_shown_on_a_persons_own_machine_only() -> None:
    assert load(demo_outbox=True).shows_outbox
    assert not load().shows_outbox
    assert not load(demo_outbox=True, base_url="https://portal.example.org").shows_outbox
