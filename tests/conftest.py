"""Fixtures of every room: a clock that stands still, a store in memory, a portal on it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from unittest.mock import patch

import pytest
import structlog
import typer.testing
from argon2 import PasswordHasher

from fhir_portal.accounts import credentials
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.portal import Portal
from fhir_portal.smart import keys
from tests.builders import FAMILY, Caller, Clock, a_portal, an_ehr, oneself


@pytest.fixture(scope="session", autouse=True)
def served_hasher() -> Iterator[PasswordHasher]:
    """What a server hashes with; in its place is what costs next to nothing.

    A test that is about the cost, or about time, puts it back.
    """
    served = credentials.HASHER
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with patch.object(credentials, "HASHER", cheap):
        yield served


@pytest.fixture(scope="session", autouse=True)
def _made_once() -> Iterator[None]:
    """What is the same for every test and takes long to make: commands, and keys to sign with."""
    with (
        patch.object(typer.testing, "_get_command", functools.cache(typer.main.get_command)),
        patch.object(keys, "_opened", functools.cache(keys._opened)),  # noqa: SLF001
    ):
        yield


@pytest.fixture
def log_as_it_was() -> Iterator[None]:
    """For a test that has the log configured: nobody after it writes into what it has closed."""
    handlers, level = logging.root.handlers, logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers, logging.root.level = handlers, level


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore.open(":memory:", clock=clock)
    yield store
    store.close()


@pytest.fixture
def portal(store: EmbeddedStore, clock: Clock) -> Portal:
    return a_portal(store, clock)


@pytest.fixture
def ehr(portal: Portal) -> Caller:
    """The EHR of the dermatology practice: may label, may write grants."""
    return Caller(portal, an_ehr())


@pytest.fixture
def other_ehr(portal: Portal) -> Caller:
    """The EHR of the family practice."""
    return Caller(portal, an_ehr(FAMILY))


@pytest.fixture
def ada(portal: Portal) -> Caller:
    """Ada with a token for her own record at the dermatology practice."""
    return Caller(portal, oneself("ada"))
