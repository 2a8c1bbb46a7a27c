"""PKCE with S256, of every client (RFC 7636; SMART App Launch 2.2 §2.0.2)."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final

from authlib.oauth2.rfc6749 import InvalidRequestError
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc7636.challenge import compare_s256_code_challenge

S256: Final = "S256"
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # base64url of 32 bytes


class RequiredS256(CodeChallenge):  # type: ignore[misc] # Authlib has no type information
    """Authlib's PKCE, with challenge and method both demanded and ``plain`` unknown.

    By itself Authlib lets an authorization request without a challenge pass and takes a missing
    method for ``plain``.
    """

    SUPPORTED_CODE_CHALLENGE_METHOD: ClassVar = [S256]
    CODE_CHALLENGE_METHODS: ClassVar = {S256: compare_s256_code_challenge}

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        data = grant.request.payload.data
        if not data.get("code_challenge"):
            raise InvalidRequestError("Missing 'code_challenge'")
        if data.get("code_challenge_method") != S256:
            raise InvalidRequestError("'code_challenge_method' must be S256")
        if not _CHALLENGE.fullmatch(data["code_challenge"]):
            raise InvalidRequestError("Invalid 'code_challenge'")
        super().validate_code_challenge(grant, redirect_uri)
