"""References between resources, as values. Source: FHIR R4 §2.3.0 (references), §2.24.0.1 (id)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Self

import msgspec

from fhir_portal.fhir.errors import Invalid

ID = r"[A-Za-z0-9\-.]{1,64}"
"""The form of a resource id, as a regular expression."""

_ID = re.compile(ID)
_TYPE = r"[A-Z][A-Za-z]{1,63}"
_KEY = re.compile(rf"({_TYPE})/({ID})")
_LITERAL = re.compile(rf"(https?://[^\s?#]+/)?({_TYPE})/({ID})(?:/_history/({ID}))?")
_CONDITIONAL = re.compile(rf"({_TYPE})\?(\S+)")
_CONTAINED = re.compile(rf"#({ID})?")
_ABSOLUTE = re.compile(
    r"https?://[^\s/?#]+\S*"
    r"|urn:uuid:[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
    r"|urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+"
    r"|urn:(?!uuid:|oid:)[A-Za-z0-9][A-Za-z0-9\-]{1,31}:\S+"
)

_ATTACHMENT = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "_")
    for name in ("contentType", "language", "data", "url", "size", "hash", "title", "creation")
) | {"id", "extension"}
_EXTENSIONS = frozenset({"extension", "modifierExtension"})


def is_id(text: str) -> bool:
    """A resource id: 1 to 64 of ``A-Z a-z 0-9 - .``."""
    return _ID.fullmatch(text) is not None


class ResourceKey(msgspec.Struct, frozen=True, order=True):
    """Which resource: ``Patient/7``."""

    type: str
    id: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``Type/id``.

        Raises:
            Invalid: when it is anything else.
        """
        match = _KEY.fullmatch(text)
        if match is None:
            raise Invalid("Not of the form Type/id.")
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"{self.type}/{self.id}"


class Reference(msgspec.Struct, frozen=True):
    """``Reference.reference``, taken apart.

    ========================================== =====================================
    ``Patient/7``, ``Patient/7/_history/2``    ``type``, ``id``, ``version``
    ``https://ehr.example/fhir/Patient/7``     the same, and ``url`` is the whole text
    ``urn:uuid:…``, other absolute URLs        ``url``
    ``#p1``; ``#`` (the container itself)      ``contained``, ``p1`` or empty
    ``Patient?identifier=…`` (transactions)    ``type``, ``query``
    ========================================== =====================================
    """

    type: str | None = None
    id: str | None = None
    version: str | None = None
    contained: str | None = None
    url: str | None = None
    query: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of a reference. Whether the type exists is not looked at.

        Raises:
            Invalid: when it has none of the forms above.
        """
        if match := _LITERAL.fullmatch(text):
            base, type_, id_, version = match.groups()
            return cls(type_, id_, version, url=text if base else None)
        if match := _CONTAINED.fullmatch(text):
            return cls(contained=match[1] or "")
        if _ABSOLUTE.fullmatch(text):
            return cls(url=text)
        if match := _CONDITIONAL.fullmatch(text):
            return cls(match[1], query=match[2])
        raise Invalid("Not a reference: neither Type/id, nor an absolute URL, nor #id.")

    @property
    def key(self) -> ResourceKey | None:
        """The resource on this server that is meant, for a relative reference."""
        if self.type is None or self.id is None or self.url is not None:
            return None
        return ResourceKey(self.type, self.id)

    def seen_from(self, base: str) -> Self:
        """The same reference, relative when its URL is a resource directly under ``base``."""
        if self.url is None or self.id is None:
            return self
        prefix = base.rstrip("/") + "/"
        if not self.url.startswith(prefix):
            return self
        inside = type(self).parse(self.url)
        relative = self.url[len(prefix) :]
        if relative.partition("/_history/")[0] != f"{inside.type}/{inside.id}":
            return self
        return type(self)(inside.type, inside.id, inside.version)

    def __str__(self) -> str:
        if self.url is not None:
            return self.url
        if self.contained is not None:
            return f"#{self.contained}"
        if self.query is not None:
            return f"{self.type}?{self.query}"
        versioned = f"/_history/{self.version}" if self.version else ""
        return f"{self.type}/{self.id}{versioned}"


def references_in(tree: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every Reference that has a ``reference``, contained resources and extensions included.

    Yields:
        where it is (``Observation.performer[0]``, JSON names) and the Reference itself, which may
        be changed in place.
    """
    for path, _, holder in _objects(tree):
        if holder.get("reference").__class__ is str:
            yield _written(path), holder


def attachments_in(tree: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every Attachment that has a ``url``: what may point at a Binary.

    An Attachment is told by its members (FHIR R4 §2.24.0.17): it has no others, which no other
    type with a ``url`` can say except an extension, and those are known by their name.

    Yields:
        where it is, and the Attachment itself, which may be changed in place.
    """
    for path, name, holder in _objects(tree):
        if (
            holder.get("url").__class__ is str
            and name not in _EXTENSIONS
            and holder.keys() <= _ATTACHMENT
        ):
            yield _written(path), holder


def attachment_like(member: str, node: Mapping[str, Any]) -> bool:
    """Whether what stands at a member is an Attachment with a ``url``; see `attachments_in`."""
    return (
        node.get("url").__class__ is str
        and member not in _EXTENSIONS
        and node.keys() <= _ATTACHMENT
    )


def links_in(tree: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """What `references_in` and `attachments_in` find, in one walk and without the places.

    Yields:
        the Reference or Attachment, which may be changed in place, and the member that holds the
        text: ``reference`` or ``url``.
    """
    stack: list[tuple[str, Any]] = [("", tree)]
    while stack:
        member, node = stack.pop()
        if member:
            if node.get("reference").__class__ is str:
                yield node, "reference"
            elif attachment_like(member, node):
                yield node, "url"
        for name, value in node.items():
            if value.__class__ is dict:
                stack.append((name, value))
            elif value.__class__ is list:
                stack += [(name, item) for item in value if item.__class__ is dict]


_Path = tuple[Any, str]  # (path of the parent or None, one step)


def _objects(tree: Mapping[str, Any]) -> Iterator[tuple[_Path, str, dict[str, Any]]]:
    """All objects below ``tree`` in document order: path, name of the member, object."""
    root: _Path = (None, str(tree.get("resourceType", "")))
    stack: list[tuple[_Path, str, Any]] = [(root, "", tree)]
    while stack:
        path, member, node = stack.pop()
        if member:
            yield path, member, node
        below: list[tuple[_Path, str, Any]] = []
        for name, value in node.items():
            if value.__class__ is dict:
                below.append(((path, name), name, value))
            elif value.__class__ is list:
                below += [
                    ((path, f"{name}[{index}]"), name, item)
                    for index, item in enumerate(value)
                    if item.__class__ is dict
                ]
        stack.extend(reversed(below))


def _written(path: _Path | None) -> str:
    steps: list[str] = []
    while path is not None:
        path, step = path
        steps.append(step)
    return ".".join(reversed(steps)).lstrip(".")
