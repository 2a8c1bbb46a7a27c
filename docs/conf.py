"""How Sphinx builds these pages: MyST Markdown, the furo theme; warnings are errors (Makefile)."""

from __future__ import annotations

from importlib import metadata

project = "fhir-portal"
release = version = metadata.version("fhir-portal")
extensions = ["myst_parser"]
exclude_patterns: list[str] = []
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"fhir-portal {release}"
