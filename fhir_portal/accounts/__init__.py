"""Accounts: one human, one sign-in."""
