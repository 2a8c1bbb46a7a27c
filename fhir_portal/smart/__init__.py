"""The authorization server: SMART App Launch 2.2 on OAuth 2.0 and OpenID Connect."""
