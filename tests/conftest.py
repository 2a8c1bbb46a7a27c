"""Fixtures of every room: a clock that stands still, a store in memory, a portal on it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.portal import Portal
from tests.builders import FAMILY, Caller, Clock, a_portal, an_ehr, oneself


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
