"""Consolidated CDA 2.1: the record as an XML document that other systems read."""
