"""The canary scan: every text of people's data and every secret is unique, and found nowhere else.

``python -m tests.end_to_end.canary`` runs it and prints the figures; the test is
``tests/end_to_end/test_canary.py``. `marked` makes the world, `walk` goes through it, `evidence`
is what it left behind, `scan` looks for the canaries in there.
"""
