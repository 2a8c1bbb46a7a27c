"""Activation: the ways by which somebody who has no account here proves who they are.

By the link of an invitation and its security code, by the code alone, by a printed sheet, or by the
mail address that the practice has. Whatever is wrong has one refusal, `NotMatched`, and takes the
same look-ups and one commit, whether there is such an invitation or not. Every try is counted
before it is looked at; the fifth wrong one locks, and staff are told. Patients are read as the
server itself, and nothing of that reaches a page but a name's initials, for who has the link.
"""
