"""The deployment under ``deploy/`` as far as it can be tried without Docker."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from fhir_portal.app import Application
from fhir_portal.settings import PREFIX, SETTINGS_FILE, Settings, load

yaml = pytest.importorskip("yaml", reason="PyYAML comes with what `make lint` installs")

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MEMBERS = sorted(name for name, one in SERVICES.items() if "/data/db" in str(one.get("volumes")))
SECRETS_FOLDER = "/run/secrets/"


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ``secrets.sh`` makes."""
    folder = tmp_path_factory.mktemp("deploy") / "secrets"
    make_secrets(folder)
    return folder


def make_secrets(folder: Path) -> None:
    subprocess.run(["sh", DEPLOY / "secrets.sh", folder], check=True, stdout=subprocess.DEVNULL)


def variables() -> dict[str, str]:
    """What the server finds in its environment: the image's, then the service's."""
    of_image = dict(re.findall(rf"\b({PREFIX}\w+)=(\S+)", DOCKERFILE))
    of_service = {
        name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value))
        for name, value in SERVICES["portal"]["environment"].items()
    }
    return of_image | of_service


def test_every_variable_is_a_setting() -> None:
    known = {SETTINGS_FILE} | {PREFIX + name.upper() for name in Settings.model_fields}
    used = set(variables()) | set(re.findall(rf"\b{PREFIX}[A-Z_]+", str(COMPOSE)))
    assert used <= known
    assert f"{PREFIX}HOST" in used


def test_the_server_can_be_started_with_what_it_is_given(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables().items():
        monkeypatch.setenv(name, value.replace(SECRETS_FOLDER, f"{secrets}/"))
    settings = load()
    assert settings.host == "0.0.0.0"
    assert settings.port == 8000
    assert len(settings.secret_key()) == 32
    assert settings.mongodb_uri is not None
    uri = urlsplit(settings.mongodb_uri.get_secret_value())
    assert uri.netloc.partition("@")[2].split(",") == MEMBERS
    assert uri.password == (secrets / "mongodb_portal_password").read_text()
    assert f"--replSet {uri.query.partition('replicaSet=')[2]} " in str(SERVICES[MEMBERS[0]])


def test_the_setup_makes_what_the_address_names(secrets: Path) -> None:
    script = (DEPLOY / "mongodb-setup.js").read_text("utf-8")
    address = (secrets / "portal.toml").read_text("utf-8")
    assert re.findall(r'"([\w-]+):27017"', script) == MEMBERS
    database = re.search(r'DATABASE = "(\w+)"', script)
    name = re.search(r'SET = "(\w+)"', script)
    assert database is not None
    assert name is not None
    assert f"/{database[1]}?replicaSet={name[1]}" in address
    assert 'roles: ["readWrite"]' in script
    for one in re.findall(r'secret\("(\w+)"\)', script):
        assert one in SERVICES["mongodb-setup"]["secrets"]


def test_every_secret_is_declared_made_and_used(secrets: Path) -> None:
    declared = {name: DEPLOY / one["file"] for name, one in COMPOSE["secrets"].items()}
    used = {name for service in SERVICES.values() for name in service.get("secrets", [])}
    assert used == set(declared)
    assert {file.parent for file in declared.values()} == {DEPLOY / "secrets"}
    assert {file.name for file in declared.values()} == {file.name for file in secrets.iterdir()}
    for service in SERVICES.values():
        for name in re.findall(rf"{SECRETS_FOLDER}([\w.]+)", str(service)):
            assert name in service["secrets"]


def test_no_password_is_in_a_variable_or_in_the_repository() -> None:
    for service in SERVICES.values():
        assert not re.search(r"PASSWORD|MONGODB_URI", str(service.get("environment", "")))
    assert "/secrets/" in (DEPLOY / ".gitignore").read_text("utf-8").split()


def test_every_config_and_volume_is_declared() -> None:
    for service in SERVICES.values():
        assert set(service.get("configs", [])) <= set(COMPOSE["configs"])
        volumes = {one.partition(":")[0] for one in service.get("volumes", [])}
        assert volumes <= set(COMPOSE["volumes"])
        assert set(service.get("networks", [])) <= set(COMPOSE["networks"])
    for one in COMPOSE["configs"].values():
        assert (DEPLOY / one["file"]).is_file()


def test_secrets_are_made_once_and_for_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make_secrets(folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "mongodb_admin_password").unlink()
    make_secrets(folder)
    after = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert after.pop("mongodb_admin_password") != before.pop("mongodb_admin_password")
    assert after == before


def test_only_the_server_can_be_reached() -> None:
    assert [name for name, one in SERVICES.items() if "ports" in one] == ["portal"]
    assert SERVICES["portal"]["ports"] == ["127.0.0.1:8000:8000"]
    assert len(MEMBERS) == 3
    for name in MEMBERS:
        assert SERVICES[name]["networks"] == ["database"]
        assert SERVICES[name]["hostname"] == name
    assert COMPOSE["networks"]["database"]["internal"]


async def test_the_address_that_is_watched_is_one_of_the_servers(
    tmp_path: Path,
) -> None:
    text = DOCKERFILE + str(SERVICES["portal"])
    watched = set(re.findall(r"http://127\.0\.0\.1:8000(/[\w/.]+)", text))
    assert watched
    application = Application(load(data=tmp_path / "portal.db"))
    await application.open()
    try:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(application), base_url="http://127.0.0.1:8000"
        ) as http:
            for path in watched:
                assert (await http.get(path)).status_code == 200, path
    finally:
        await application.close()


def test_the_image_installs_what_is_locked_and_does_not_run_as_root() -> None:
    for command in re.findall(r"pip install[^\\\n]*", DOCKERFILE):
        assert "--require-hashes" in command or "--no-deps" in command
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["python:3.11-slim"] * 2
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE) == ["10001"]


def test_what_the_image_copies_is_there_and_let_in() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").split()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        source
        for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for source in sources.split()
    }
    assert copied == let_in
    for source in copied:
        assert (ROOT / source).exists()


@pytest.mark.skipif(shutil.which("node") is None, reason="node reads the script")
def test_the_setup_is_a_script() -> None:
    subprocess.run(["node", "--check", DEPLOY / "mongodb-setup.js"], check=True)
