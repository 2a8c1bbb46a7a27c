"""The grants of the token endpoint: Authlib's classes, told where the loaded values are."""
