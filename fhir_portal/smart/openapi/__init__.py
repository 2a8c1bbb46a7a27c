"""The OpenAPI 3.1 description of the OAuth surface: every endpoint, every refusal by its name."""
