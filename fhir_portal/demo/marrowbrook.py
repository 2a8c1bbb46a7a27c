"""Marrowbrook Family Medicine: Mara and her child, a teenager, and Teodor at his family doctor."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final

from fhir_portal.consent.grant import IG
from fhir_portal.demo import codes, people
from fhir_portal.demo.chart import Chart
from fhir_portal.demo.chart_sheet import reference
from fhir_portal.demo.codes import Code, Json, concept

_FAMILY_DOCTOR: Final = Code(codes.SNOMED, "62247001", "Family medicine specialist")
_NURSE: Final = Code(codes.SNOMED, "224571005", "Nurse practitioner")
_FRONT_DESK: Final = Code(codes.SNOMED, "159561009", "Receptionist")

MOTHER: Final = Code(codes.ROLE_CODE, "MTH", "mother")
FATHER: Final = Code(codes.ROLE_CODE, "FTH", "father")
BROTHER: Final = Code(codes.ROLE_CODE, "BRO", "brother")
NEIGHBOUR: Final = Code(codes.ROLE_CODE, "NBOR", "neighbor")
ATTORNEY: Final = Code(codes.ROLE_CODE, "POWATT", "power of attorney")

HYPOTHYROIDISM: Final = (
    Code(codes.ICD_10, "E03.9", "Hypothyroidism, unspecified"),
    Code(codes.SNOMED, "40930008", "Hypothyroidism"),
)
ANAEMIA: Final = (
    Code(codes.ICD_10, "D50.9", "Iron deficiency anemia, unspecified"),
    Code(codes.SNOMED, "87522002", "Iron deficiency anemia"),
)
RHINITIS: Final = (Code(codes.ICD_10, "J30.2", "Other seasonal allergic rhinitis"),)
ASTHMA: Final = (
    Code(codes.ICD_10, "J45.20", "Mild intermittent asthma, uncomplicated"),
    Code(codes.SNOMED, "195967001", "Asthma"),
)
EAR: Final = (Code(codes.ICD_10, "H66.90", "Otitis media, unspecified, unspecified ear"),)
ACNE: Final = (
    Code(codes.ICD_10, "L70.0", "Acne vulgaris"),
    Code(codes.SNOMED, "88616000", "Acne vulgaris"),
)
LOW_MOOD: Final = (Code(codes.ICD_10, "F32.0", "Major depressive disorder, single episode, mild"),)
HYPERTENSION: Final = (
    Code(codes.ICD_10, "I10", "Essential (primary) hypertension"),
    Code(codes.SNOMED, "38341003", "Hypertensive disorder"),
)
ROUTINE: Final = Code(codes.ICD_10, "Z00.00", "General adult medical examination")
ROUTINE_CHILD: Final = Code(codes.ICD_10, "Z00.129", "Routine child health examination")

INFLUENZA: Final = Code(codes.CVX, "150", "Influenza, injectable, quadrivalent, preservative free")
TDAP: Final = Code(codes.CVX, "115", "Tdap")
DTAP: Final = Code(codes.CVX, "20", "DTaP")
POLIO: Final = Code(codes.CVX, "10", "IPV")
MEASLES: Final = Code(codes.CVX, "03", "MMR")
VARICELLA: Final = Code(codes.CVX, "21", "varicella")
PAPILLOMA: Final = Code(codes.CVX, "165", "HPV9")
MENINGITIS: Final = Code(codes.CVX, "114", "meningococcal MCV4P")

_LEVOTHYROXINE: Final = Code(codes.RXNORM, "10582", "levothyroxine")
_IRON: Final = Code(codes.RXNORM, "24947", "ferrous sulfate")
_CETIRIZINE: Final = Code(codes.RXNORM, "20610", "cetirizine")
_ALBUTEROL: Final = Code(codes.RXNORM, "435", "albuterol")
_AMOXICILLIN: Final = Code(codes.RXNORM, "723", "amoxicillin")
_BENZOYL_PEROXIDE: Final = Code(codes.RXNORM, "1418", "benzoyl peroxide")
_FLUOXETINE: Final = Code(codes.RXNORM, "4493", "fluoxetine")
_LISINOPRIL: Final = Code(codes.RXNORM, "29046", "lisinopril")
_PENICILLIN: Final = Code(codes.RXNORM, "70618", "penicillin")
_PEANUT: Final = Code(codes.SNOMED, "762952008", "Peanut")

_SMOKING: Final = Code(codes.LOINC, "72166-2", "Tobacco smoking status")
_NEVER_SMOKED: Final = Code(codes.SNOMED, "266919005", "Never smoked tobacco")
_MOOD_SCORE: Final = Code(
    codes.LOINC, "55758-7", "Patient Health Questionnaire 2 item (PHQ-2) total score"
)

_ASTHMA_CHECK: Final = "https://marrowbrook.example/Questionnaire/asthma-check"
_NIGHT: Final = {"linkId": "night", "text": "Nights with a cough in the last week"}
_SPORT: Final = {"linkId": "sport", "text": "Does sport bring it on?"}

CONFIDENTIAL: Final = (codes.RESTRICTED, codes.PSYCHIATRY)

DOCTOR: Final = "Practitioner/astrup"
NURSE: Final = "Practitioner/ondaro"
RETIRED: Final = "Practitioner/wexcombe"
FRONT_DESK: Final = "Practitioner/saffrey"
LABORATORY: Final = "Organization/hollowbeck"
HEALTH_PLAN: Final = "Organization/tarnwick"


def marrowbrook(day: date) -> Chart:
    """Everything the family practice holds."""
    chart = Chart(people.MARROWBROOK.key, people.MARROWBROOK.name, people.MARROWBROOK.zone, day)
    _directory(chart)
    _mara(chart)
    _juno(chart)
    _silas(chart)
    _ottilie(chart)
    _teodor(chart)
    chart.open_times("checkups", DOCTOR, "Wilhelmina Astrup", people.CHECKUP, hours=(9, 11, 14))
    chart.open_times("nurse", NURSE, "Cyril Ondaro", people.NURSE_VISIT, hours=(10, 15))
    return chart


def taken_back(chart: Chart) -> Json:
    """The grant that Mara took back, as it is after that."""
    grant = next(r for r in chart.resources if r["id"] == "mara-neighbour-grant")
    return {**grant, "status": "inactive"}


def _directory(chart: Chart) -> None:
    chart.organization("marrowbrook", chart.name, "prov", listed=True)
    chart.organization("hollowbeck", "Hollowbeck Laboratory", "other", listed=False)
    chart.organization("tarnwick", "Tarnwick Health Plan", "pay", listed=False)
    chart.location("marrowbrook", chart.name, "12 Alder Court")
    chart.support_line("Help with the portal")
    chart.practitioner("astrup", "Wilhelmina", "Astrup", _FAMILY_DOCTOR)
    chart.practitioner("ondaro", "Cyril", "Ondaro", _NURSE)
    chart.practitioner("saffrey", "Noor", "Saffrey", _FRONT_DESK)
    chart.practitioner("vantongel", "Imke", "Vantongel", codes.OFFICE_STAFF)
    chart.practitioner("thackmoor", "Rosalind", "Thackmoor", codes.OFFICE_STAFF)
    chart.practitioner("wexcombe", "Aurelio", "Wexcombe", _FAMILY_DOCTOR, listed=False)
    chart.add(
        "Medication",
        "levothyroxine-50",
        code=concept(_LEVOTHYROXINE, text="levothyroxine 50 microgram tablet"),
        status="active",
        form={"text": "tablet"},
    )
    chart.add(
        "Questionnaire",
        "asthma-check",
        url=_ASTHMA_CHECK,
        title="How is the asthma?",
        status="active",
        subjectType=["Patient"],
        item=[{**_NIGHT, "type": "integer"}, {**_SPORT, "type": "boolean"}],
    )
    for name in ("pre-registration", "medical-history", "insurance"):
        chart.form(name)


_MARAS_VISITS: Final = (
    (-716, codes.CHECK_UP, ROUTINE, RETIRED, "Well. Mother has a thyroid disease."),
    (-655, codes.FOR_SYMPTOM, RHINITIS[0], NURSE, "Sneezing since April. Tablets when it is bad."),
    (-590, codes.FOR_SYMPTOM, HYPOTHYROIDISM[0], DOCTOR, "Tired, cold. TSH high twice: treated."),
    (-540, codes.FOLLOW_UP, HYPOTHYROIDISM[0], DOCTOR, "More energy. Same dose."),
    (-430, codes.FOLLOW_UP, HYPOTHYROIDISM[0], DOCTOR, "Stable. Blood again in six months."),
    (-352, codes.CHECK_UP, ROUTINE, DOCTOR, "Yearly check-up. Haemoglobin low: iron ordered."),
    (-280, codes.FOLLOW_UP, ANAEMIA[0], DOCTOR, "Tolerates iron. Ferritin rising."),
    (-190, codes.FOLLOW_UP, ANAEMIA[0], NURSE, "Feels well. Iron for three more months."),
    (-97, codes.FOLLOW_UP, HYPOTHYROIDISM[0], DOCTOR, "Stable on the same dose. Iron stopped."),
    (-12, codes.CHECK_UP, ROUTINE, DOCTOR, "Yearly check-up. Influenza vaccine given."),
)
_MARAS_BLOOD_TESTS: Final = (-716, -590, -540, -352, -280, -190, -97, -12)
_MARAS_YEARLY_TESTS: Final = (-716, -352, -12)


_PAID_BY: Final = -60


def _mara(chart: Chart) -> None:
    mara = chart.patient(
        "mara", "Mara", "Ellwick", "female", chart.years_ago(38, 112), "7 Millrace Lane"
    )
    for number, (days, kind, reason, who, note) in enumerate(_MARAS_VISITS, 1):
        name = f"mara-visit-{number}"
        visit = chart.visit(name, mara, days, kind, reason, who, note)
        chart.vitals(name, mara, days, visit, who)
        chart.appointment(name, mara, days, 9, reason.display, who, "fulfilled")
        paid = "balanced" if days < _PAID_BY else "issued"
        chart.bill(name, mara, days, "Office visit", 95 + number, paid)
    chart.measured("mara-height", mara, codes.HEIGHT, -716, codes.VITAL_SIGNS, performer=RETIRED)
    for days in _MARAS_BLOOD_TESTS:
        tests = (*codes.BLOOD_COUNTS, codes.FERRITIN, codes.TSH)
        chart.report(f"mara-blood{days}", mara, codes.BLOOD_COUNT, tests, days, LABORATORY)
    for days in _MARAS_YEARLY_TESTS:
        chemistry = (*codes.METABOLIC_TESTS, codes.A1C)
        chart.report(f"mara-metabolic{days}", mara, codes.METABOLIC, chemistry, days, LABORATORY)
        chart.report(f"mara-lipids{days}", mara, codes.LIPIDS, codes.LIPID_TESTS, days, LABORATORY)
        never = {"valueCodeableConcept": concept(_NEVER_SMOKED)}
        chart.answered(f"mara-smoking{days}", mara, _SMOKING, codes.SOCIAL_HISTORY, days, never)
        chart.answered(
            f"mara-mood{days}", mara, _MOOD_SCORE, codes.SURVEY, days, {"valueInteger": 1}
        )
    chart.measured(
        "mara-a1c-held",
        mara,
        codes.A1C,
        -3,
        codes.LABORATORY,
        performer=LABORATORY,
        value=5.8,
        withheld=True,
    )
    chart.condition("mara-thyroid", mara, HYPOTHYROIDISM, -590, encounter="Encounter/mara-visit-3")
    chart.condition("mara-iron", mara, ANAEMIA, -352, ended=-97, encounter="Encounter/mara-visit-6")
    chart.condition("mara-rhinitis", mara, RHINITIS, -655, encounter="Encounter/mara-visit-2")
    chart.allergy("mara-penicillin", mara, _PENICILLIN, "Rash", -716)
    chart.prescription(
        "mara-levothyroxine",
        mara,
        "Medication/levothyroxine-50",
        "One tablet in the morning, half an hour before breakfast",
        -590,
        DOCTOR,
    )
    chart.prescription(
        "mara-iron", mara, _IRON, "One tablet every other day", -352, DOCTOR, stopped=True
    )
    chart.prescription(
        "mara-cetirizine", mara, _CETIRIZINE, "One tablet in the evening, when needed", -655, NURSE
    )
    chart.vaccine("mara-influenza-1", mara, INFLUENZA, -352, NURSE)
    chart.vaccine("mara-influenza-2", mara, INFLUENZA, -12, NURSE)
    chart.vaccine("mara-tdap", mara, TDAP, -716, RETIRED)
    chart.appointment("mara-next", mara, 16, 10, "Blood pressure and blood test", NURSE, "booked")
    chart.appointment("mara-later", mara, 90, 9, "Thyroid follow-up", DOCTOR, "booked")
    for name, title in (
        ("pre-registration", "Before your visit"),
        ("medical-history", "Your medical history"),
    ):
        canonical = f"{IG}/Questionnaire/{name}"
        chart.form_due(f"mara-{name}", mara, f"Questionnaire/{name}", canonical, title, 14)
    chart.coverage("mara", mara, HEALTH_PLAN, -800)
    chart.proposed_number("mara-number", mara, "+1 555 555 0164")
    chart.document(
        "mara-letter",
        mara,
        -351,
        codes.LETTER,
        "Your results of this year",
        "Everything is in order but your iron, which is low. Please begin the tablets.",
        DOCTOR,
    )
    chart.conversation(
        "mara-iron",
        mara,
        "Iron and the thyroid tablet",
        ("medicine", "A medicine"),
        ("mara-1", mara, DOCTOR, -350, 20, "Should I take the iron with the thyroid tablet?"),
        ("mara-2", DOCTOR, mara, -349, 8, "Please leave four hours between the two."),
    )
    _helpers_of(chart, mara)
    chart.person("mara", "Mara", "Ellwick", mara, "RelatedPerson/juno-mother")


def _helpers_of(chart: Chart, mara: str) -> None:
    """Two grants that are over: one ran out, the other will be taken back."""
    ruben = chart.related_person("mara-brother", mara, "Ruben", "Ellwick", BROTHER)
    chart.grant(
        "mara-brother-grant",
        mara,
        ruben,
        people.HELPERS_SECTIONS,
        start=-420,
        end=chart.on(-55),
        by=mara,
    )
    chart.person("ruben", "Ruben", "Ellwick", ruben)
    dana = chart.related_person("mara-neighbour", mara, "Dana", "Corvill", NEIGHBOUR)
    chart.grant(
        "mara-neighbour-grant",
        mara,
        dana,
        people.NEIGHBOURS_SECTIONS,
        act=("messages",),
        start=-200,
        end=chart.on(500),
        by=mara,
    )
    chart.person("dana", "Dana", "Corvill", dana)


_JUNOS_VISITS: Final = (
    (-690, codes.CHECK_UP, ROUTINE_CHILD, RETIRED, "Growing well. Vaccines given."),
    (-510, codes.FOR_SYMPTOM, EAR[0], NURSE, "Ear ache and fever. Antibiotic for seven days."),
    (-330, codes.CHECK_UP, ROUTINE_CHILD, DOCTOR, "Growing well. Cough after running."),
    (-240, codes.FOR_SYMPTOM, ASTHMA[0], DOCTOR, "Cough at night: inhaler, shown how."),
    (-60, codes.FOLLOW_UP, ASTHMA[0], NURSE, "Sleeps through. Inhaler before sport only."),
)


def _juno(chart: Chart) -> None:
    born = chart.years_ago(8, 75)
    juno = chart.patient("juno", "Juno", "Ellwick", "female", born, "7 Millrace Lane")
    mother = chart.related_person("juno-mother", juno, "Mara", "Ellwick", MOTHER)
    father = chart.related_person("juno-father", juno, "Oskar", "Lindqvar", FATHER)
    for number, (days, kind, reason, who, note) in enumerate(_JUNOS_VISITS, 1):
        name = f"juno-visit-{number}"
        visit = chart.visit(name, juno, days, kind, reason, who, note, hour=15)
        chart.vitals(name, juno, days, visit, who, codes.CHILD_VITALS, codes.CHILD_PRESSURES)
        chart.appointment(name, juno, days, 15, reason.display, who, "fulfilled")
    chart.report("juno-blood", juno, codes.BLOOD_COUNT, codes.BLOOD_COUNTS, -330, LABORATORY)
    chart.add(  # nobody has said what kind of observation this is: it falls in no section
        "Observation",
        "juno-hearing",
        status="final",
        code={"text": "Hearing screen at school"},
        subject=reference(juno),
        effectiveDateTime=chart.on(-150),
        valueString="Both ears normal",
    )
    chart.condition("juno-asthma", juno, ASTHMA, -240, encounter="Encounter/juno-visit-4")
    chart.condition("juno-ear", juno, EAR, -510, ended=-495, encounter="Encounter/juno-visit-2")
    chart.allergy("juno-peanut", juno, _PEANUT, "Hives", -330)
    chart.prescription(
        "juno-albuterol", juno, _ALBUTEROL, "Two puffs before sport, and when needed", -240, DOCTOR
    )
    chart.prescription(
        "juno-amoxicillin",
        juno,
        _AMOXICILLIN,
        "Twice a day for seven days",
        -510,
        NURSE,
        stopped=True,
    )
    for vaccine in (DTAP, POLIO, MEASLES, VARICELLA):
        chart.vaccine(f"juno-vaccine-{vaccine.code}", juno, vaccine, -690, NURSE)
    chart.vaccine("juno-influenza", juno, INFLUENZA, -60, NURSE)
    chart.appointment("juno-next", juno, 9, 15, "Asthma follow-up", NURSE, "booked")
    chart.coverage("juno", juno, HEALTH_PLAN, -800)
    chart.bill("juno-bill", juno, -60, "Office visit", 85, "issued")
    chart.conversation(
        "juno-trip",
        juno,
        "The school trip",
        ("medical", "A medical question"),
        ("juno-1", mother, NURSE, -58, 19, "May she take the inhaler to the school trip?"),
        ("juno-2", NURSE, mother, -57, 9, "Yes. The school form is among her documents."),
    )
    chart.add(
        "QuestionnaireResponse",
        "juno-asthma",
        questionnaire=_ASTHMA_CHECK,
        status="completed",
        subject=reference(juno),
        authored=chart.at(-61, 20),
        author=reference(mother),
        source=reference(mother),
        item=[
            {**_NIGHT, "answer": [{"valueInteger": 0}]},
            {**_SPORT, "answer": [{"valueBoolean": True}]},
        ],
    )
    asthma = ("Questionnaire/asthma-check", _ASTHMA_CHECK, "How is the asthma?")
    chart.form_due("juno-form", juno, *asthma, 8)
    chart.document(
        "juno-school",
        juno,
        -57,
        codes.LETTER,
        "Inhaler at school",
        "Juno carries an inhaler and may use it before sport and whenever she coughs.",
        NURSE,
    )
    grown_up = _last_day_under(born, 18)
    _granted(chart, juno, mother, people.MOTHER_SEES, people.MOTHER_ACTS, -500, grown_up)
    _granted(chart, juno, father, people.FATHER_SEES, (), -480, grown_up)
    chart.person("oskar", "Oskar", "Lindqvar", father)


def _silas(chart: Chart) -> None:
    born = chart.years_ago(16, 200)
    silas = chart.patient("silas", "Silas", "Overmeer", "male", born, "88 Quarry Road")
    mother = chart.related_person("silas-mother", silas, "Petra", "Overmeer", MOTHER)
    visit = chart.visit(
        "silas-visit-1",
        silas,
        -310,
        codes.CHECK_UP,
        ROUTINE_CHILD,
        DOCTOR,
        "Well. Fit for sport.",
        hour=16,
    )
    chart.vitals("silas-visit-1", silas, -310, visit, DOCTOR)
    visit = chart.visit(
        "silas-visit-2",
        silas,
        -120,
        codes.FOR_SYMPTOM,
        ACNE[0],
        NURSE,
        "Acne of the face. Gel at night.",
        hour=16,
    )
    chart.vitals("silas-visit-2", silas, -120, visit, NURSE)
    chart.condition("silas-acne", silas, ACNE, -120, encounter=visit)
    chart.prescription(
        "silas-gel", silas, _BENZOYL_PEROXIDE, "Thin layer at night", -120, NURSE, encounter=visit
    )
    chart.report("silas-blood", silas, codes.BLOOD_COUNT, codes.BLOOD_COUNTS, -310, LABORATORY)
    chart.vaccine("silas-hpv", silas, PAPILLOMA, -310, NURSE)
    chart.vaccine("silas-meningitis", silas, MENINGITIS, -310, NURSE)
    _confidential_visit(chart, silas)
    chart.appointment("silas-next", silas, 30, 16, "Skin follow-up", NURSE, "booked")
    _granted(
        chart, silas, mother, people.TEENAGERS_MOTHER_SEES, (), -400, _last_day_under(born, 18)
    )
    chart.person("silas", "Silas", "Overmeer", silas)
    chart.person("petra", "Petra", "Overmeer", mother)


def _confidential_visit(chart: Chart, silas: str) -> None:
    """A visit of which only the Encounter is labelled: whatever refers to it is as hidden."""
    name, days = "silas-confidential", -45
    came = chart.appointment(name, silas, days, 17, "Talk with the doctor", DOCTOR, "fulfilled")
    visit = chart.visit(
        name,
        silas,
        days,
        codes.FOR_SYMPTOM,
        LOW_MOOD[0],
        DOCTOR,
        "Came alone. Low for weeks, sleeps badly. Agreed to begin treatment and to come again.",
        hour=17,
        security=CONFIDENTIAL,
        appointment=came,
    )
    chart.condition(name, silas, LOW_MOOD, days, encounter=visit)
    chart.prescription(
        name, silas, _FLUOXETINE, "One capsule in the morning", days, DOCTOR, encounter=visit
    )
    chart.measured(
        name,
        silas,
        codes.VITALS[4],
        days,
        codes.VITAL_SIGNS,
        encounter=visit,
        performer=DOCTOR,
        value=66.1,
    )
    chart.bill_for_visit(name, silas, days, "Office visit", 110, visit)
    chart.add(
        "Communication",
        name,
        status="completed",
        subject=reference(silas),
        encounter=reference(visit),
        sent=chart.at(days + 7, 16),
        sender=reference(DOCTOR),
        recipient=[reference(silas)],
        payload=[{"contentString": "How are the first days with the capsules?"}],
    )
    chart.add(
        "QuestionnaireResponse",
        name,
        status="completed",
        questionnaire="https://marrowbrook.example/forms/before-the-visit",
        subject=reference(silas),
        encounter=reference(visit),
        authored=chart.at(days, 16),
        source=reference(silas),
        item=[
            {
                "linkId": "why",
                "text": "What brings you here?",
                "answer": [{"valueString": "I cannot sleep"}],
            }
        ],
    )


def _ottilie(chart: Chart) -> None:
    """An aged mother without an account; her son has a power of attorney, which has an end."""
    ottilie = chart.patient(
        "ottilie", "Ottilie", "Marchbank", "female", chart.years_ago(87, 201), "4 Weir Cottages"
    )
    for number, days in enumerate((-410, -230, -45), 1):
        name = f"ottilie-visit-{number}"
        visit = chart.visit(
            name,
            ottilie,
            days,
            codes.FOLLOW_UP,
            HYPERTENSION[0],
            DOCTOR,
            "Son is with her. Steady on her feet. Same dose; he puts the tablets out for the week.",
            hour=10,
        )
        chart.vitals(name, ottilie, days, visit, DOCTOR)
    chart.condition("ottilie-pressure", ottilie, HYPERTENSION, -4000)
    chart.prescription(
        "ottilie-lisinopril", ottilie, _LISINOPRIL, "One tablet a day", -1500, RETIRED
    )
    chart.appointment("ottilie-next", ottilie, 26, 10, "Blood pressure", DOCTOR, "booked")
    son = chart.related_person("ottilie-attorney", ottilie, "Lorcan", "Marchbank", ATTORNEY)
    _granted(
        chart,
        ottilie,
        son,
        people.ATTORNEY_SEES,
        people.ATTORNEY_ACTS,
        -300,
        chart.on(430),
        paper=("Power of attorney, copy", "Seen at the front desk. It ends as the grant does."),
    )
    chart.person("lorcan", "Lorcan", "Marchbank", son)


def _teodor(chart: Chart) -> None:
    teodor = chart.patient(
        "teodor", "Teodor", "Brandvik", "male", chart.years_ago(51, 40), "31 Gorse Hill"
    )
    for number, days in enumerate((-500, -320, -140), 1):
        name = f"teodor-visit-{number}"
        visit = chart.visit(
            name,
            teodor,
            days,
            codes.FOLLOW_UP,
            HYPERTENSION[0],
            DOCTOR,
            "Measures at home: mostly below 135. Same dose.",
            hour=11,
        )
        chart.vitals(name, teodor, days, visit, DOCTOR)
    chart.condition("teodor-pressure", teodor, HYPERTENSION, -900)
    chart.prescription("teodor-lisinopril", teodor, _LISINOPRIL, "One tablet a day", -900, RETIRED)
    chart.appointment("teodor-next", teodor, 40, 11, "Blood pressure", DOCTOR, "booked")
    chart.person("teodor", "Teodor", "Brandvik", teodor)


_SIGNED_FORM: Final = (
    "Proxy access form, signed",
    "Signed at the front desk; identity and custody papers were seen.",
)


def _granted(
    chart: Chart,
    patient: str,
    related_person: str,
    sections: tuple[str, ...],
    act: tuple[str, ...],
    days: int,
    end: str,
    paper: tuple[str, str] = _SIGNED_FORM,
) -> None:
    """A grant the front desk wrote down from a paper: its title, and what was seen."""
    name = related_person.partition("/")[2]
    evidence = chart.document(
        f"{name}-form",
        patient,
        days,
        codes.SHARING_FORM,
        *paper,
        FRONT_DESK,
    )
    chart.grant(
        f"{name}-grant",
        patient,
        related_person,
        sections,
        act=act,
        start=days,
        end=end,
        by=FRONT_DESK,
        evidence=evidence,
    )


def _last_day_under(born: str, years: int) -> str:
    """The last day on which a person is younger than ``years`` (early for the 29th and later)."""
    then = date.fromisoformat(born)
    birthday = then.replace(year=then.year + years, day=min(then.day, 28))
    return (birthday - timedelta(1)).isoformat()
