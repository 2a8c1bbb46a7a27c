"""What an operator may set; the only reader of the environment.

A value is taken from the first place that has it: what the command line passes to `load`, the
environment (``FHIR_PORTAL_<NAME>``), the settings file (TOML, named by
``FHIR_PORTAL_SETTINGS``), the default. What is not understood is refused under the name it was
given by. Every setting is described in ``docs/reference/settings.md``.
"""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import os
import secrets
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

import jsonschema
from email_validator import EmailNotValidError, validate_email
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

PREFIX = "FHIR_PORTAL_"
SETTINGS_FILE = f"{PREFIX}SETTINGS"
TEST_PREFIX = f"{PREFIX}TEST_"
"""Variables that the test suite reads; a server that a test starts inherits them."""
SECRET_KEY_BYTES = 32
MIB = 1024 * 1024
SHORTEST_SECRET = 32


class InvalidSettings(Exception):
    """Settings that cannot be used: one line for each, with its name and what is wrong."""


class Settings(BaseSettings):
    """The settings of one server; frozen. `load` makes them."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    base_url: str = "http://127.0.0.1:8000"
    aliases: Annotated[tuple[str, ...], NoDecode] = ()

    data: Path = Path("var/portal.db")
    mongodb_uri: SecretStr | None = None
    mongodb_driver: Literal["motor", "pymongo"] = "motor"
    mongodb_transactions: bool = True
    secret_key_file: Path | None = None
    outbox: Path | None = None

    smtp_host: str | None = None
    smtp_port: int = Field(587, ge=1, le=65535)
    smtp_tls: Literal["starttls", "tls", "none"] = "starttls"
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    smtp_from: str | None = None
    smtp_reply_to: str | None = None
    smtp_bounce_secret: SecretStr | None = None
    direct_host: str | None = None
    direct_port: int = Field(587, ge=1, le=65535)
    direct_tls: Literal["starttls", "tls", "none"] = "starttls"
    direct_username: str | None = None
    direct_password: SecretStr | None = None
    direct_from: str | None = None
    sms_url: str | None = None
    sms_secret: SecretStr | None = None
    malware_scan_command: tuple[str, ...] = ()
    malware_scan_url: str | None = None
    worker: bool = True
    payments_url: str | None = None
    payments_secret: SecretStr | None = None
    demo_outbox: bool = False
    demo_payments: bool = False

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    workers: int = Field(1, ge=1)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    max_body_bytes: int = Field(16 * MIB, ge=1024)
    max_transaction_bytes: int = Field(64 * MIB, ge=1024)

    access_token_seconds: int = Field(900, ge=60, le=3600)
    refresh_token_days: int = Field(92, ge=1)
    refresh_token_days_in_all: int = Field(365, ge=1)
    session_idle_minutes: int = Field(30, ge=1)
    session_hours: int = Field(12, ge=1)
    dpop_required: bool = False
    dpop_nonce: bool = False
    apps_on_loopback: bool = False

    @property
    def demo_file(self) -> Path:
        """Where ``fhir-portal demo`` writes down the accounts and clients it made."""
        return self.data.parent / "demo.json"

    @property
    def outbox_folder(self) -> Path:
        """Where mail is left as files: `outbox`, by default beside the data."""
        return self.outbox or self.data.parent / "outbox"

    @property
    def ledger(self) -> Path:
        """The ledger of the demo's payment provider, beside the data."""
        return self.data.parent / "demo-payments.db"

    @property
    def shows_outbox(self) -> bool:
        """Whether the demo shows its outbox on a page: on a person's own machine only."""
        return self.demo_outbox and _is_loopback(urlsplit(self.base_url).hostname or "")

    @property
    def takes_test_payments(self) -> bool:
        """Whether the demo's test provider takes payments: on a person's own machine only."""
        here = _is_loopback(urlsplit(self.base_url).hostname or "")
        return self.demo_payments and here and self.payments_url is None

    def secret_key(self) -> bytes:
        """Return the server's key, made on first use and readable by its owner alone.

        Any number of processes may ask at once: the file appears whole, and the first one wins.
        Raises `InvalidSettings` when the file holds something else.
        """
        path = self.secret_key_file or self.data.parent / "secret.key"
        if not path.exists():
            _create_once(path, f"{secrets.token_hex(SECRET_KEY_BYTES)}\n")
        try:
            key = bytes.fromhex(path.read_text("ascii"))
        except ValueError:
            key = b""
        if len(key) != SECRET_KEY_BYTES:
            raise InvalidSettings(
                f"secret_key_file: {path} must hold {2 * SECRET_KEY_BYTES} hexadecimal digits"
            )
        return key

    @field_validator("base_url")
    @classmethod
    def _is_an_origin(cls, url: str) -> str:
        return _origin(url)

    @field_validator("aliases", mode="before")
    @classmethod
    def _are_separate(cls, urls: Any) -> Any:
        return urls.replace(",", " ").split() if isinstance(urls, str) else urls

    @field_validator("aliases")
    @classmethod
    def _are_origins(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_origin(url) for url in urls)

    @field_validator("mongodb_uri")
    @classmethod
    def _names_mongodb(cls, uri: SecretStr | None) -> SecretStr | None:
        if uri and not uri.get_secret_value().startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("must begin with mongodb:// or mongodb+srv://")
        return uri

    @field_validator("smtp_from", "smtp_reply_to", "direct_from")
    @classmethod
    def _is_mail_address(cls, address: str | None) -> str | None:
        if address is None:
            return None
        try:
            found = validate_email(address, check_deliverability=False, test_environment=True)
        except EmailNotValidError:
            raise ValueError("must be a mail address, and nothing else") from None
        if found.ascii_email is None:
            raise ValueError("must have ASCII letters before the @")
        return found.ascii_email

    @field_validator("sms_url", "payments_url", "malware_scan_url")
    @classmethod
    def _is_gateway(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("must be an http or https address")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ValueError("must be https, unless it is a loopback address")
        return url

    @field_validator("sms_secret", "smtp_bounce_secret", "payments_secret")
    @classmethod
    def _is_long_enough(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value()) < SHORTEST_SECRET:
            raise ValueError(f"must have at least {SHORTEST_SECRET} characters")
        return secret

    @model_validator(mode="before")
    @classmethod
    def _loopback_follows_the_port(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Without a base URL this is one person's machine: both its names, on this port."""
        if "base_url" in values:
            return values
        port = values.get("port", cls.model_fields["port"].default)
        aliases = values.get("aliases", [f"http://localhost:{port}"])
        return {**values, "base_url": f"http://127.0.0.1:{port}", "aliases": aliases}

    @model_validator(mode="after")
    def _transactions_hold_a_body(self) -> Self:
        if self.max_transaction_bytes < self.max_body_bytes:
            raise ValueError("max_transaction_bytes must not be less than max_body_bytes")
        return self

    @model_validator(mode="after")
    def _can_send(self) -> Self:
        if self.smtp_host is not None:
            if self.smtp_from is None:
                raise ValueError("smtp_host needs smtp_from")
            if self.smtp_tls == "none" and not _is_loopback(self.smtp_host):
                raise ValueError("smtp_tls must not be none, unless smtp_host is on loopback")
        if self.direct_host is not None:
            if self.direct_from is None:
                raise ValueError("direct_host needs direct_from")
            if self.direct_tls == "none" and not _is_loopback(self.direct_host):
                raise ValueError("direct_tls must not be none, unless direct_host is on loopback")
        if (self.direct_username is None) != (self.direct_password is None):
            raise ValueError("direct_username and direct_password go together")
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise ValueError("smtp_username and smtp_password go together")
        if (self.sms_url is None) != (self.sms_secret is None):
            raise ValueError("sms_url and sms_secret go together")
        if (self.payments_url is None) != (self.payments_secret is None):
            raise ValueError("payments_url and payments_secret go together")
        if self.malware_scan_command and self.malware_scan_url is not None:
            raise ValueError("there is one scanner: malware_scan_command or malware_scan_url")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not a place we read
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not a place we read
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Name the places values come from, the first one that has it wins."""
        return init_settings, env_settings, _SettingsFile(settings_cls)


SECRETS = {
    name for name, field in Settings.model_fields.items() if SecretStr in get_args(field.annotation)
}
"""The settings that are secrets, or hold one."""


def load(**given: Any) -> Settings:
    """Read the settings; ``given`` comes from the command line and wins, where it is not ``None``.

    Raises `InvalidSettings` naming each setting that is unknown or has a value it cannot have.
    """
    given = {name: value for name, value in given.items() if value is not None}
    wrong = _unknown_variables(os.environ)
    try:
        settings = Settings(**given)
    except ValidationError as error:
        wrong += [
            _name(problem["loc"], given) + problem["msg"].removeprefix("Value error, ")
            for problem in error.errors(include_input=False, include_url=False)
        ]
    if wrong:
        raise InvalidSettings("\n".join(wrong))
    return settings


class _SettingsFile(PydanticBaseSettingsSource):
    """The file that ``FHIR_PORTAL_SETTINGS`` names, checked before anything is taken from it."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # the file is read as a whole

    def __call__(self) -> dict[str, Any]:
        name = os.environ.get(SETTINGS_FILE)
        if not name:
            return {}
        try:
            values = tomllib.loads(Path(name).read_text("utf-8"))
        except OSError as error:
            raise InvalidSettings(f"{SETTINGS_FILE}: {name}: {error.strerror}") from error
        except ValueError as error:
            raise InvalidSettings(f"{name}: not TOML: {error}") from error
        wrong = [f"{name}: {problem}" for problem in _problems(values)]
        if wrong:
            raise InvalidSettings("\n".join(wrong))
        return values


def _problems(values: Mapping[str, Any]) -> list[str]:
    """Judge what a settings file holds against the settings' own JSON schema."""
    known = list(Settings.model_fields)
    schema = Settings.model_json_schema() | {"additionalProperties": True}
    errors = jsonschema.Draft202012Validator(schema).iter_errors(values)
    return [
        *(f"{key}: {_unknown(key, known)}" for key in values if key not in known),
        # a secret, or what holds one: say what was wrong without repeating it
        *(
            f"{'.'.join(map(str, error.path))}: "
            + ("must be text" if error.path and error.path[0] in SECRETS else error.message)
            for error in errors
        ),
    ]


def _unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a line for each variable that has our prefix and no meaning: most likely a typo."""
    known = [SETTINGS_FILE, *(PREFIX + name.upper() for name in Settings.model_fields)]
    ours = sorted(
        name
        for name in environment
        if name.upper().startswith(PREFIX) and not name.upper().startswith(TEST_PREFIX)
    )
    return [
        f"{name}: {_unknown(name.upper(), known)}" for name in ours if name.upper() not in known
    ]


def _unknown(name: str, known: list[str]) -> str:
    similar = difflib.get_close_matches(name, known, n=1)
    return f"no such setting; did you mean {similar[0]}?" if similar else "no such setting"


def _name(location: tuple[int | str, ...], given: Mapping[str, Any]) -> str:
    """Name a setting the way it was given: as a variable, or bare from command line or file."""
    if not location:
        return ""
    name = str(location[0])
    variable = PREFIX + name.upper()
    return f"{variable if name not in given and os.environ.get(variable) else name}: "


def _origin(url: str) -> str:
    """Return scheme, host and port of ``url``; what else it holds but one ``/`` is refused.

    Only loopback addresses may go without TLS, which RFC 6749 §3.1 and §3.2 demand.
    """
    parts = urlsplit(url.strip())
    _ = parts.port  # raises ValueError when it is not one
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http or https address")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be scheme, host and port only")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError("must be https, unless it is a loopback address")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 §6.3
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _create_once(path: Path, text: str) -> None:
    """Create ``path`` with ``text`` and mode 0600, durably, unless another process has."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        Path(draft).unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def hand_down(settings: Settings) -> None:
    """Put the settings into the environment, where the worker processes to be started read them."""
    given = settings.model_dump(mode="json", exclude=SECRETS, exclude_none=True)
    for name, value in given.items():
        text = " ".join(value) if isinstance(value, list) else str(value)
        os.environ[f"{PREFIX}{name.upper()}"] = text
    for name in SECRETS:
        secret: SecretStr | None = getattr(settings, name)
        if secret is not None:
            os.environ[f"{PREFIX}{name.upper()}"] = secret.get_secret_value()
