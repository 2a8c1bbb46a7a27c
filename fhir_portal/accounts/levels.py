"""Access levels: named sets of what a practice's staff may do there.

Every practice has its own, and each has versions: whoever changes one says which version they
saw, and every earlier one is kept. Nothing implies anything else: who may invite people does not
thereby see a record. `fhir_portal.accounts.staff` says who has which level,
`fhir_portal.accounts.level_changes` changes what a level is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, get_args

from fhir_portal.accounts.account import folded
from fhir_portal.records import Record, RecordReader

Permission = Literal[
    "view",
    "invite",
    "revoke",
    "recover",
    "forms",
    "proxies",
    "appointments",
    "messages",
    "documents",
    "billing",
    "audit",
    "administer",
]
"""One thing that a member of staff may do, in the practice where they have the level."""

PERMISSIONS: Final[tuple[Permission, ...]] = get_args(Permission)
MEANS: Final[Mapping[Permission, str]] = {
    "view": "read the records of the practice's patients",
    "invite": "invite patients and those who act for them, and print their instructions",
    "revoke": "take invitations back, shut accounts, end sessions and what apps were allowed",
    "recover": "help people back into their accounts, without seeing or choosing a password",
    "forms": "give patients forms to fill in, and file the answers and what patients propose to "
    "change",
    "proxies": "invite people to act for a patient (beside invite), confirm who others invited, "
    "and end that they do",
    "appointments": "hold, book, move and cancel appointments, and answer requests for them",
    "messages": "read and answer what patients write to the practice",
    "documents": "give documents to patients, take in theirs, label what is in a record, and "
    "release or hold back results",
    "billing": "work on bills and payments",
    "audit": "read who looked at what",
    "administer": "change access levels, who has which, words of messages, settings, and the rules "
    "that hide and delay what patients see; open shut accounts again; end the portal for somebody; "
    "merge patients",
}
"""What each permission lets somebody do, as people read it after "may"."""

READ: Final = "read"
"""The level that every practice has without a record of it; nobody can change it."""
MAX_NAME: Final = 40
MAX_LEVELS: Final = 100
"""So many levels may a practice have."""
BUILT_IN: Final = "built-in"
_ALL: Final = 1_000_000
_VERSION_DIGITS: Final = 8


class LevelRefused(Exception):
    """What was to be done with access levels cannot be; the message says why, to who asked."""


class InvalidLevel(LevelRefused):
    """A name that no level can have, or a permission that there is not."""


class UnknownLevel(LevelRefused):
    """The practice has no such level."""


class BuiltInLevel(LevelRefused):
    """The level is part of the portal, and stays as it is."""


class LevelChanged(LevelRefused):
    """It was changed by somebody else since it was looked at."""


class LevelInUse(LevelRefused):
    """Somebody on the staff has it."""


class NotPermitted(LevelRefused):
    """Who asks may not change levels, or would give more than they have."""


class LastAdministrator(LevelRefused):
    """Nobody would be left in the practice who may change access levels."""


class LastHolder(LevelRefused):
    """Nobody in the practice could give a permission back that who asks does not have."""


class AccessLevel(Record, frozen=True, kw_only=True):
    """A level of a practice as it is now; ``key`` is `level_key`.

    ``name`` is as it was written, ``permissions`` are sorted, ``version`` counts from 1.
    ``changed`` is in seconds since 1970 UTC, ``changed_by`` an account's id or ``operator``.
    """

    kind: ClassVar[str] = "access-level"
    indexed: ClassVar[tuple[str, ...]] = ("practice",)

    practice: str
    name: str
    permissions: tuple[str, ...]
    version: int
    changed: float
    changed_by: str

    @property
    def conveys(self) -> frozenset[str]:
        """What it lets somebody do; what this server does not know is nothing."""
        return frozenset(self.permissions) & frozenset(PERMISSIONS)

    @property
    def is_built_in(self) -> bool:
        """Whether it is the one that nobody can change."""
        return self.version == 0


class AccessLevelVersion(Record, frozen=True, kw_only=True):
    """A version of a level; ``key`` is ``<practice>/<folded name>/<version, zero-padded>``.

    It is kept from the moment that the version is replaced, or the level is removed. The removal
    itself is a version too, ``removed`` and without permissions, so that it is known who did it;
    a level that is made again by that name counts on from there.
    """

    kind: ClassVar[str] = "access-level-version"
    indexed: ClassVar[tuple[str, ...]] = ("level",)

    level: str
    name: str
    permissions: tuple[str, ...]
    version: int
    changed: float
    changed_by: str
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Editor:
    """Who changes levels, or gives one: an account, and what it may do in the practice.

    ``permissions`` are those of the session or token that is used. What the account has at the
    time of the change bounds them, so that nobody uses what they had.
    """

    account: str
    permissions: frozenset[str]


OPERATOR: Final = Editor("operator", frozenset(PERMISSIONS))
"""Whoever runs the deployment: on nobody's staff, and not bound by a level."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What a change makes of a level. ``before`` is ``None`` for a new one.

    ``people`` is how many on the staff have it.
    """

    name: str
    before: frozenset[str] | None
    after: frozenset[str]
    people: int = 0

    @property
    def added(self) -> frozenset[str]:
        """What it gives that it did not give before."""
        return self.after - (self.before or frozenset())

    @property
    def taken(self) -> frozenset[str]:
        """What it gave before."""
        return (self.before or frozenset()) - self.after

    @property
    def is_none(self) -> bool:
        """Whether nothing changes."""
        return self.before is not None and self.before == self.after


def in_order(permissions: Collection[str]) -> tuple[Permission, ...]:
    """Return the permissions in the order in which they are told to people."""
    return tuple(one for one in PERMISSIONS if one in permissions)


def known(permissions: Collection[str]) -> frozenset[str]:
    """Return permissions that all exist. Raises `InvalidLevel`."""
    for one in sorted(permissions):
        if one not in PERMISSIONS:
            raise InvalidLevel(
                f"there is no permission '{one[:MAX_NAME]}'; there are {', '.join(PERMISSIONS)}"
            )
    return frozenset(permissions)


def folded_name(name: str) -> str:
    """Return the form in which names of levels are compared; ``""`` for what is no level's name.

    A name has 1 to 40 printable characters, folded as well as written. Case, width and runs of
    spaces do not tell names apart.
    """
    compared = " ".join(folded(name).split())
    fits = len(name.strip()) <= MAX_NAME and len(compared) <= MAX_NAME
    return compared if fits and name.strip().isprintable() and compared.isprintable() else ""


def require_name(name: str) -> str:
    """Return a name as it is kept. Raises `InvalidLevel`, or `BuiltInLevel` for the built-in's."""
    if not folded_name(name):
        raise InvalidLevel(f"an access level's name has 1 to {MAX_NAME} printable characters")
    if folded_name(name) == READ:
        raise BuiltInLevel(f"the access level '{READ}' is built in and stays as it is")
    return " ".join(name.split())


def level_key(practice: str, name: str) -> str:
    """Return the key of a level, however its name is written."""
    return f"{practice}/{folded_name(name)}"


def version_key(level: str, version: int) -> str:
    """Return the key of a version: in the order of the versions."""
    return f"{level}/{version:0{_VERSION_DIGITS}}"


def built_in(practice: str) -> AccessLevel:
    """Return the level that every practice has: to read, and nothing else."""
    return AccessLevel(
        key=level_key(practice, READ),
        practice=practice,
        name=READ,
        permissions=("view",),
        version=0,
        changed=0.0,
        changed_by=BUILT_IN,
    )


async def level_of(reader: RecordReader, practice: str, name: str) -> AccessLevel | None:
    """Return a practice's level, however its name is written, or ``None``."""
    called = folded_name(name)
    if called == READ:
        return built_in(practice)
    return await reader.get(AccessLevel, f"{practice}/{called}") if called else None


async def levels_of(reader: RecordReader, practice: str) -> list[AccessLevel]:
    """Return the levels of a practice: the built-in one, then the others by their names."""
    kept = await reader.find(AccessLevel, "practice", practice, limit=_ALL)
    return [built_in(practice), *kept]


async def earlier_versions(
    reader: RecordReader, practice: str, name: str
) -> list[AccessLevelVersion]:
    """Return what a level was before, the oldest version first; its removals are among them."""
    return await reader.find(AccessLevelVersion, "level", level_key(practice, name), limit=_ALL)
