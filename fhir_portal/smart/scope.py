"""Scopes as values: parsed once at the edge, narrowed by algebra, echoed as they were asked for.

SMART App Launch 2.2, section "Scopes and Launch Context": resource scopes in the syntax of
version 1 (``patient/Observation.read``) and version 2 (``patient/Observation.rs?category=...``),
beside identity and launch scopes (``openid``, ``launch/patient``).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Self

from fhir_portal.smart.errors import InvalidScope

LETTERS: Final = "cruds"
MOST_REQUESTED: Final = 150
"""Resource scopes that one request, or one client's registration, may name."""
MOST_OF_UNCHECKED: Final = 80
"""The same for a request of a client that nobody has looked at: judging each takes time."""
GRANTABLE_IDENTITY: Final = (
    "openid",
    "fhirUser",
    "launch",
    "launch/patient",
    "launch/encounter",
    "offline_access",
)

# Understood, so that asking for them is no error, but never granted: the token says so.
_UNGRANTED_IDENTITY: Final = frozenset({"profile", "email", "phone", "address", "online_access"})
_OTHER_LAUNCH: Final = re.compile(r"launch/[a-z]+(-[a-z]+)*")
_RESOURCE: Final = re.compile(
    r"(?P<context>patient|user|system)/(?P<type>\*|[A-Z][A-Za-z]*)"
    r"\.(?P<letters>read|write|\*|(?=[cruds])c?r?u?d?s?)(?:\?(?P<query>.+))?"
)
# A value may hold what RFC 6749 §3.3 allows in a scope, but "&" and "=".
_PARAMETER: Final = re.compile(
    r"(?P<name>[a-z_][A-Za-z0-9-]*)=[\x21\x23-\x25\x27-\x3c\x3e-\x5b\x5d-\x7e]+"
)
_VERSION_1: Final = {"read": "rs", "write": "cud", "*": "cruds"}
_VERSION_1_SPELLING: Final = {letters: word for word, letters in _VERSION_1.items()}
# What begins with "_" shapes results, or is experimental in scopes (`_filter`); but for these.
_PLAIN_UNDERSCORED: Final = frozenset({"_id", "_lastUpdated", "_tag", "_security", "_profile"})


@dataclass(frozen=True, slots=True)
class Scope:
    """One resource scope: ``patient/Observation.rs?category=laboratory``.

    ``query`` is what follows ``?``, as it was sent. ``version_1`` remembers only the spelling:
    scopes that mean the same are equal.
    """

    context: str
    resource_type: str
    letters: str
    query: str = ""
    version_1: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one resource scope. Raises `InvalidScope` for what is not understood.

        Modifiers, chaining and ``_filter`` are experimental in SMART 2.2; each is refused by name.
        """
        match = _RESOURCE.fullmatch(text)
        if match is None:
            if text.startswith("launch/") and "?" in text:
                raise InvalidScope(_experimental("a role for a launch scope"))
            raise InvalidScope("not a SMART resource scope")
        word, query = match["letters"], match["query"] or ""
        if query and (word in _VERSION_1 or match["type"] == "*"):
            raise InvalidScope("only a version 2 scope for one type may have search parameters")
        for part in query.split("&") if query else ():
            parameter = _PARAMETER.fullmatch(part)
            name = parameter["name"] if parameter else "_"
            if name.startswith("_") and name not in _PLAIN_UNDERSCORED:
                raise InvalidScope(_refusal(part.partition("=")[0]))
        return cls(
            match["context"],
            match["type"],
            _VERSION_1.get(word, word),
            query,
            version_1=word in _VERSION_1,
        )

    def __str__(self) -> str:
        word = _VERSION_1_SPELLING.get(self.letters) if self.version_1 and not self.query else None
        text = f"{self.context}/{self.resource_type}.{word or self.letters}"
        return f"{text}?{self.query}" if self.query else text

    def allows(self, letter: str, resource_type: str) -> bool:
        """Whether the scope lets its bearer do ``letter`` on this type, as far as scopes go."""
        return letter in self.letters and self.resource_type in ("*", resource_type)

    @property
    def parameters(self) -> frozenset[str]:
        """The search parameters, each ``name=value``; all of them must match."""
        return _parameters(self.query)

    def covers(self, other: Scope) -> bool:
        """Whether everything ``other`` allows is allowed by this scope."""
        return (
            self.context == other.context
            and self.resource_type in ("*", other.resource_type)
            and set(self.letters) >= set(other.letters)
            and self.parameters <= other.parameters
        )

    def intersect(self, other: Scope) -> Scope | None:
        """What both allow, in the spelling of this scope; ``None`` when that is nothing.

        Two queries meet only where one holds all of the other's conditions: a scope that would
        have to combine them is not given.
        """
        letters = "".join(letter for letter in self.letters if letter in other.letters)
        if self.context != other.context or not letters:
            return None
        if self.resource_type != "*" and other.resource_type not in ("*", self.resource_type):
            return None
        if self.parameters >= other.parameters:
            query = self.query
        elif self.parameters < other.parameters:
            query = other.query
        else:
            return None
        resource_type = other.resource_type if self.resource_type == "*" else self.resource_type
        return Scope(self.context, resource_type, letters, query, version_1=self.version_1)

    def limited_to(self, letters: str) -> Scope | None:
        """This scope with no more than these letters; ``None`` when none is left."""
        kept = "".join(letter for letter in self.letters if letter in letters)
        return replace(self, letters=kept) if kept else None


@dataclass(frozen=True, slots=True)
class ScopeSet:
    """What a client asks for, may ask for, or was granted.

    ``identity`` holds the identity and launch scopes (``openid``, ``launch/patient``),
    ``resource`` the resource scopes; both in the order they came, without repeats.
    """

    identity: tuple[str, ...] = ()
    resource: tuple[Scope, ...] = ()

    @classmethod
    def parse(cls, text: str, *, at_most: int | None = None) -> Self:
        """Read a ``scope`` parameter (RFC 6749 §3.3).

        ``at_most`` bounds the resource scopes of a text that is not our own (`MOST_REQUESTED`):
        to narrow and join scopes takes time with the square of their number. Raises
        `InvalidScope` for more than that, for a word that is not understood, and for resource
        scopes of more than one context, which no token of this server combines.
        """
        identity: dict[str, None] = {}
        resource: dict[Scope, None] = {}
        for word in text.split(" "):
            if not word:
                continue
            if (
                word in GRANTABLE_IDENTITY
                or word in _UNGRANTED_IDENTITY
                or _OTHER_LAUNCH.fullmatch(word)
            ):
                identity[word] = None
            else:
                resource.setdefault(Scope.parse(word))
                if at_most is not None and len(resource) > at_most:
                    raise InvalidScope(f"more than {at_most} resource scopes")
        if len({scope.context for scope in resource}) > 1:
            raise InvalidScope("patient/, user/ and system/ scopes cannot be in one token")
        return cls(tuple(identity), tuple(resource))

    def __str__(self) -> str:
        return " ".join((*self.identity, *map(str, self.resource)))

    def __bool__(self) -> bool:
        return bool(self.identity or self.resource)

    @property
    def context(self) -> str | None:
        """``patient``, ``user`` or ``system``; ``None`` when there is no resource scope."""
        return self.resource[0].context if self.resource else None

    def covers(self, other: ScopeSet) -> bool:
        """Whether everything in ``other`` is allowed here."""
        return set(self.identity) >= set(other.identity) and all(
            self._letters_for(theirs) >= set(theirs.letters) for theirs in other.resource
        )

    def _letters_for(self, scope: Scope) -> set[str]:
        """What may be done here to all that ``scope`` is about."""
        return {
            letter
            for mine in self.resource
            if mine.context == scope.context
            and mine.resource_type in ("*", scope.resource_type)
            and mine.parameters <= scope.parameters
            for letter in mine.letters
        }

    def within(self, bound: ScopeSet) -> ScopeSet:
        """What of this set ``bound`` allows too; never more than either."""
        pieces = (
            piece
            for asked in self.resource
            for allowed in bound.resource
            if (piece := asked.intersect(allowed)) is not None
        )
        identity = tuple(word for word in self.identity if word in bound.identity)
        return ScopeSet(identity, merged(pieces))

    def expanded(self, resource_types: Sequence[str]) -> ScopeSet:
        """Put one scope per type in the place of each wildcard."""
        resource = (
            replace(scope, resource_type=resource_type)
            for scope in self.resource
            for resource_type in (
                resource_types if scope.resource_type == "*" else (scope.resource_type,)
            )
        )
        return ScopeSet(self.identity, merged(resource))

    def limited_by(self, grantable: Callable[[Scope], str]) -> ScopeSet:
        """Leave each resource scope the letters that ``grantable`` names for it, if any."""
        limited = (scope.limited_to(grantable(scope)) for scope in self.resource)
        return ScopeSet(self.identity, tuple(scope for scope in limited if scope is not None))


@functools.lru_cache(maxsize=4096)
def _parameters(query: str) -> frozenset[str]:
    return frozenset(query.split("&")) if query else frozenset()


def _experimental(what: str) -> str:
    return f"{what} is experimental in SMART 2.2 and is not supported here"


def _refusal(name: str) -> str:
    """Why a parameter of this name cannot be in a scope; says no more of it than its kind."""
    if name.startswith("_has"):
        return _experimental("reverse chaining (_has) in a scope")
    if name == "_filter":
        return _experimental("_filter in a scope")
    if ":" in name:
        return _experimental("a modifier (name:modifier) in a scope")
    if "." in name:
        return _experimental("a chained parameter (name.name) in a scope")
    return "a scope may hold plain search parameters only"


def merged(scopes: Iterable[Scope]) -> tuple[Scope, ...]:
    """Join scopes of one type and query, then drop what another one covers."""
    joined: dict[tuple[str, str, frozenset[str]], Scope] = {}
    for scope in scopes:
        key = (scope.context, scope.resource_type, scope.parameters)
        before = joined.get(key)
        if before is None:
            joined[key] = scope
        else:
            both = {*before.letters, *scope.letters}
            joined[key] = replace(
                before,
                letters="".join(letter for letter in LETTERS if letter in both),
                version_1=before.version_1 and scope.version_1,
            )
    kept = tuple(joined.values())
    by_type: dict[str, list[Scope]] = {}
    for scope in kept:
        by_type.setdefault(scope.resource_type, []).append(scope)
    return tuple(
        scope
        for scope in kept
        if not any(
            other is not scope and other.covers(scope)
            for resource_type in {scope.resource_type, "*"}
            for other in by_type.get(resource_type, ())
        )
    )
