"""Labels in plain words: what each says, whom it hides something from, and where it comes from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from fhir_portal.consent.labels import (
    ACT_CODE,
    CONFIDENTIALITY,
    PROXY_LABELS,
    SELF_LABELS,
    SENSITIVE,
    UNKNOWN,
    WITHHELD,
)

LABEL_WORDS: Final[Mapping[str, str]] = {
    "R": "Confidential",
    "V": "Very confidential",
    "ADOL": "About an adolescent",
    "ALC": "Alcohol use",
    "BH": "Behavioral health",
    "CELEB": "Somebody the public knows",
    "DEMO": "Personal details",
    "DIA": "A diagnosis",
    "DRGIS": "Drug use",
    "DVD": "Developmental disability",
    "EMP": "Employment",
    "ETH": "Substance use",
    "ETHUD": "Alcohol use disorder",
    "GDIS": "Genetic disease",
    "HIV": "HIV and AIDS",
    "LOCIS": "Where somebody lives or stays",
    "MARST": "Marital status",
    "MST": "Sexual trauma in military service",
    "OPIOIDUD": "Opioid use disorder",
    "PHY": "Kept apart at a doctor's request",
    "PREGNANT": "Pregnancy",
    "PSY": "Psychiatric disorder",
    "PSYTHPN": "Psychotherapy note",
    "RACE": "Race",
    "REL": "Religion",
    "SCA": "Sickle cell anemia",
    "SDV": "Sexual assault, abuse or domestic violence",
    "SEX": "Sexuality and reproductive health",
    "SICKLE": "Sickle cell disease",
    "SOC": "Social services",
    "SPI": "Protected by a law of its own",
    "SSP": "From a provider of sensitive services",
    "STD": "Sexually transmitted disease",
    "SUD": "Substance use disorder",
    "TABOO": "For a doctor to tell first",
    "VIO": "Violence",
    WITHHELD: "Held back",
}
"""Every label that a rule can give; all but the last can be given by hand."""
BY_HAND: Final[Mapping[str, str]] = {
    code: words for code, words in LABEL_WORDS.items() if code in SENSITIVE
}
_UNKNOWN: Final = "A label that this server does not know"
_ACTING: Final = "everybody who acts for the patient, and their apps"


def label_words(code: str) -> str:
    """Return what a label is called."""
    return _UNKNOWN if code == UNKNOWN else LABEL_WORDS.get(code, "For the practice alone")


def hidden_from(code: str) -> str:
    """Return whom a label hides something from."""
    if code in PROXY_LABELS:
        return "Nobody."
    if code in SELF_LABELS:
        return f"Hidden from {_ACTING}. The patient sees it."
    return f"Hidden from the patient, from {_ACTING}. Staff and the EHR see it."


def seen_by(codes: Collection[str]) -> str:
    """Return who sees what has these labels."""
    labels = frozenset(codes)
    if labels <= PROXY_LABELS:
        return "The patient, and those who act for them as far as they may."
    if labels <= SELF_LABELS:
        return "The patient. Nobody who acts for the patient."
    return "Staff and the EHR alone: neither the patient nor anybody who acts for them."


def coding_of(code: str) -> Mapping[str, str]:
    """Return a label of `BY_HAND` as a Coding."""
    return {"system": CONFIDENTIALITY if code in {"R", "V"} else ACT_CODE, "code": code}


def origin_words(label: Mapping[str, Any]) -> str:
    """Return where a label comes from, as ``$labels`` says it; not the resource that it names."""
    source, name = label.get("source"), label.get("name")
    if source == "own":
        return "Tagged by the EHR." if label["code"] == WITHHELD else "It carries this itself."
    if source == "rule":
        return f"By the practice's rule “{name}”."
    if source == "release":
        return f"Waits for its release by the rule “{name}”." if name else "Held back by staff."
    return "Because it refers to" if source == "reference" else "Because it is listed by"
