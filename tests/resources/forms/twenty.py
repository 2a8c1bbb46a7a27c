"""Twenty forms: each with answers that are right, and answers that are wrong at one item.

`Wrong` says which linkId a refusal has to name, where, and a word of what it says.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.builders import Json, reference, resource

CORE = "http://hl7.org/fhir/StructureDefinition/"
SDC = "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-"
FORMS = "https://forms.example/Questionnaire/"
CODES = "https://forms.example/CodeSystem/answers"
SIGNATURE = f"{CORE}questionnaireresponse-signature"


def item(link_id: str, kind: str, *items: Json, **more: Any) -> Json:
    """An item; ``text`` unless told otherwise is the linkId, extensions are ``ext=[...]``."""
    tree: Json = {"linkId": link_id, "text": f"About {link_id}", "type": kind}
    ext = more.pop("ext", [])
    if ext:
        tree["extension"] = ext
    return tree | more | ({"item": list(items)} if items else {})


def ext(name: str, **value: Any) -> Json:
    return {"url": name if "://" in name else f"{CORE}{name}", **value}


def expression(name: str, text: str) -> Json:
    value = {"language": "text/fhirpath", "expression": text}
    return {"url": f"{SDC}{name}", "valueExpression": value}


def when(question: str, operator: str, **answer: Any) -> Json:
    return {"question": question, "operator": operator, **answer}


def coding(code: str, display: str | None = None) -> Json:
    return {"system": CODES, "code": code, **({"display": display} if display else {})}


def options(*codes: str) -> list[Json]:
    return [{"valueCoding": coding(one, one.title())} for one in codes]


def form(name: str, *items: Json, **more: Any) -> Json:
    return resource(
        "Questionnaire",
        name,
        **{"url": f"{FORMS}{name}", "title": name.title(), "status": "active", "item": list(items)}
        | more,
    )


def answer(link_id: str, *values: Json) -> Json:
    return {"linkId": link_id, "answer": list(values)}


def group(link_id: str, *items: Json) -> Json:
    return {"linkId": link_id, "item": list(items)}


def response(name: str, *items: Json, status: str = "completed", **more: Any) -> Json:
    return resource(
        "QuestionnaireResponse",
        None,
        **{
            "status": status,
            "questionnaire": f"{FORMS}{name}",
            "subject": reference("Patient/ada"),
            "source": reference("Patient/ada"),
            "item": copy.deepcopy(list(items)) or None,
        }
        | more,
    )


@dataclass(frozen=True)
class Wrong:
    form: str
    items: Sequence[Mapping[str, Any]]
    link_id: str
    where: str
    says: str
    more: Json | None = None

    @property
    def name(self) -> str:
        return f"{self.form}-{self.link_id}-{self.says}"


def text(value: str) -> Json:
    return {"valueString": value}


def code(value: str, **more: Any) -> Json:
    return {"valueCoding": coding(value) | more}


YES: Json = {"valueBoolean": True}
NO: Json = {"valueBoolean": False}
PNG = (  # one white dot
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
)


def quantity(value: float, unit: str) -> Json:
    return {
        "valueQuantity": {
            "value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit,
        }
    }  # fmt: skip


MOOD = [{"valueCoding": coding(str(n), words)} for n, words in enumerate(("Never", "Days", "Half"))]

QUESTIONNAIRES: dict[str, Json] = {
    one["id"]: one
    for one in (
        form(
            "sleep",
            item("hours", "decimal", required=True, ext=[
                ext("minValue", valueDecimal=0), ext("maxValue", valueDecimal=24),
                ext("maxDecimalPlaces", valueInteger=1),
            ]),
            item("naps", "boolean"),
        ),
        form(
            "smoking",
            item("smokes", "boolean", required=True),
            item("how-much", "group",
                item("a-day", "integer", required=True, ext=[ext("minValue", valueInteger=1)]),
                item("since", "date", ext=[ext("maxValue", valueDate="2030-01-01")]),
                enableWhen=[when("smokes", "=", answerBoolean=True)],
            ),
        ),
        form(
            "allergies",
            item("any", "choice", required=True, answerOption=options("yes", "no", "unsure")),
            item("allergy", "group",
                item("to-what", "open-choice", required=True,
                     answerOption=options("penicillin", "latex")),
                item("reaction", "choice", repeats=True,
                     answerOption=options("rash", "swelling", "other")),
                item("other", "string", required=True, maxLength=40,
                     enableWhen=[when("reaction", "=", answerCoding=coding("other"))]),
                repeats=True, required=True, ext=[ext("questionnaire-maxOccurs", valueInteger=3)],
                enableWhen=[when("any", "=", answerCoding=coding("yes"))],
            ),
        ),
        form(
            "contact",
            item("name", "string", required=True, maxLength=30),
            item("zip", "string", ext=[ext("regex", valueString="[0-9]{5}(-[0-9]{4})?")]),
            item("site", "url"),
            item("call-at", "time", ext=[
                ext("minValue", valueTime="08:00:00"), ext("maxValue", valueTime="18:00:00"),
            ]),
        ),
        form(
            "scale",
            *(item(f"q{n}", "choice", required=True, answerOption=MOOD) for n in (1, 2)),
            item("hard", "choice", required=True, answerOption=options("somewhat", "very"),
                 enableBehavior="any",
                 enableWhen=[
                     when(f"q{n}", "=", answerCoding=coding("2")) for n in (1, 2)
                 ]),
        ),
        form(
            "both",
            item("adult", "boolean"),
            item("pregnant", "boolean"),
            item("weeks", "integer", enableBehavior="all", enableWhen=[
                when("adult", "=", answerBoolean=True), when("pregnant", "=", answerBoolean=True),
            ]),
        ),
        form(
            "nested",
            item("pain", "boolean",
                item("where", "string", required=True,
                     enableWhen=[when("pain", "=", answerBoolean=True)]),
                item("worst", "group",
                     item("score", "integer", ext=[ext("maxValue", valueInteger=10)])),
                required=True),
        ),
        form(
            "photo",
            item("card", "attachment", required=True, ext=[
                ext("mimeType", valueCode="image/png"), ext("mimeType", valueCode="image/jpeg"),
                ext("maxSize", valueDecimal=0.0001),
            ]),
        ),
        form(
            "signed",
            item("agree", "boolean", required=True),
            ext=None,
            extension=[ext("questionnaire-signatureRequired", valueCodeableConcept={
                "coding": [{"system": "urn:iso-astm:E1762-95:2013", "code": "1.2.840.10065.1.12.1.1"}]
            })],
        ),
        form(
            "sum",
            item("a", "integer", required=True),
            item("b", "integer"),
            item("total", "integer", readOnly=True, ext=[expression(
                "calculatedExpression",
                "%resource.item.where(linkId='a').answer.value"
                " + iif(%resource.item.where(linkId='b').answer.exists(),"
                " %resource.item.where(linkId='b').answer.value, 0)",
            )]),
        ),
        form(
            "teams",
            item("member", "group",
                 item("born", "date", required=True), item("told", "boolean"),
                 repeats=True, required=True,
                 ext=[ext("questionnaire-minOccurs", valueInteger=2)]),
        ),
        form(
            "weight",
            item("weight", "quantity", required=True, ext=[
                ext("maxValue", valueQuantity=quantity(300, "kg")["valueQuantity"])
            ]),
            item("heavy", "display", enableWhen=[
                when("weight", ">", answerQuantity=quantity(150, "kg")["valueQuantity"])]),
            item("help", "boolean", required=True, enableWhen=[
                when("weight", ">", answerQuantity=quantity(150, "kg")["valueQuantity"])]),
        ),
        form(
            "valueset",
            item("color", "choice", repeats=True, answerValueSet="#colors",
                 ext=[ext("questionnaire-minOccurs", valueInteger=2)]),
            contained=[{
                "resourceType": "ValueSet", "id": "colors", "status": "active",
                "compose": {"include": [{"system": CODES, "concept": [
                    {"code": "red", "display": "Red"}, {"code": "blue"}, {"code": "green"}]}]},
            }],
        ),
        form(
            "gender",
            item("gender", "choice",
                 answerValueSet="http://hl7.org/fhir/ValueSet/administrative-gender"),
        ),
        form(
            "sizes",
            item("size", "choice", required=True,
                 answerOption=[{"valueInteger": one} for one in (36, 38, 40)]),
            item("day", "choice", answerOption=[{"valueString": "monday"}, {"valueString": "friday"}]),
        ),
        form(
            "given",
            item("clinic", "string", readOnly=True, initial=[{"valueString": "Main Street"}]),
            item("secret", "string", ext=[ext("questionnaire-hidden", valueBoolean=True)],
                 required=True),
            item("note", "text", ext=[ext("minLength", valueInteger=3)]),
        ),
        form(
            "visit",
            item("last", "dateTime", ext=[ext("minValue", valueDateTime="2000-01-01")]),
            item("never", "boolean", required=True,
                 enableWhen=[when("last", "exists", answerBoolean=False)]),
            item("doctor", "reference"),
        ),
        form(
            "not",
            item("state", "choice", answerOption=options("good", "bad")),
            item("why", "string", enableWhen=[when("state", "!=", answerCoding=coding("good"))]),
        ),
        form(
            "chain",
            item("one", "boolean"),
            item("two", "boolean", enableWhen=[when("one", "=", answerBoolean=True)]),
            item("three", "boolean", enableWhen=[when("two", "=", answerBoolean=True)]),
        ),
        form(
            "rule",
            item("from", "date", required=True),
            item("to", "date", required=True),
            item("ask", "string", ext=[expression(
                "enableWhenExpression", "%resource.item.where(linkId='from').answer.value > @2020-01-01",
            )]),
            extension=[{
                "url": f"{CORE}questionnaire-constraint",
                "extension": [
                    {"url": "key", "valueId": "order"},
                    {"url": "severity", "valueCode": "error"},
                    {"url": "human", "valueString": "The end comes after the start."},
                    {"url": "expression", "valueString":
                        "%resource.item.where(linkId='from').answer.value"
                        " <= %resource.item.where(linkId='to').answer.value"},
                ],
            }],
        ),
    )
}  # fmt: skip

ALLERGY = (answer("to-what", text("Wool")), answer("reaction", code("rash"), code("swelling")))
MEMBER = group("member", answer("born", {"valueDate": "1990"}))
SIGNED: Json = {
    "extension": [
        {
            "url": SIGNATURE,
            "valueSignature": {
                "type": [
                    {"system": "urn:iso-astm:E1762-95:2013", "code": "1.2.840.10065.1.12.1.1"}
                ],
                "when": "2030-03-17T17:46:40Z",
                "who": {"reference": "Patient/ada"},
            },
        }
    ]
}
CARD = {"valueAttachment": {"contentType": "image/png", "data": PNG}}
HEAVY = answer("weight", quantity(151, "kg"))

RIGHT: list[Json] = [
    response("sleep", answer("hours", {"valueDecimal": 7.5}), answer("naps", NO)),
    response("smoking", answer("smokes", NO)),
    response(
        "smoking",
        answer("smokes", YES),
        group("how-much", answer("a-day", {"valueInteger": 3}), answer("since", {"valueDate": "2010"})),
    ),
    response("allergies", answer("any", code("no"))),
    response("allergies", answer("any", code("yes", display="Yes")), group("allergy", *ALLERGY)),
    response(
        "allergies",
        answer("any", code("yes")),
        group("allergy", *ALLERGY),
        group(
            "allergy",
            answer("to-what", code("latex")),
            answer("reaction", code("other")),
            answer("other", text("sneezing")),
        ),
    ),
    response(
        "contact",
        answer("name", text("Ada")),
        answer("zip", text("60614-1234")),
        answer("site", {"valueUri": "https://ada.example"}),
        answer("call-at", {"valueTime": "09:30:00"}),
    ),
    response("scale", answer("q1", code("0")), answer("q2", code("1"))),
    response("scale", answer("q1", code("0")), answer("q2", code("2")), answer("hard", code("very"))),
    response("both", answer("adult", YES), answer("pregnant", YES), answer("weeks", {"valueInteger": 9})),
    response(
        "nested",
        answer(
            "pain",
            YES | {"item": [answer("where", text("knee")), group("worst", answer("score", {"valueInteger": 4}))]},
        ),
    ),
    response("photo", answer("card", CARD)),
    response("signed", answer("agree", YES), **SIGNED),
    response("sum", answer("a", {"valueInteger": 2}), answer("b", {"valueInteger": 3}), answer("total", {"valueInteger": 5})),
    response("sum", answer("a", {"valueInteger": 2}), answer("total", {"valueInteger": 2})),
    response("teams", MEMBER, MEMBER),
    response("weight", HEAVY, answer("help", YES)),
    response("weight", answer("weight", quantity(80.5, "kg"))),
    response("valueset", answer("color", code("red"), code("blue"))),
    response("gender", answer("gender", {"valueCoding": {"system": "http://hl7.org/fhir/administrative-gender", "code": "other"}})),
    response("sizes", answer("size", {"valueInteger": 38}), answer("day", text("friday"))),
    response("given", answer("clinic", text("Main Street")), answer("note", text("fine"))),
    response("visit", answer("last", {"valueDateTime": "2029-05"})),
    response("visit", answer("never", YES), answer("doctor", {"valueReference": {"display": "Dr. Lark"}})),
    response("not", answer("state", code("bad")), answer("why", text("cough"))),
    response("not"),
    response("chain", answer("one", YES), answer("two", YES), answer("three", NO)),
    response("rule", answer("from", {"valueDate": "2021-01-01"}), answer("to", {"valueDate": "2021-02-01"}), answer("ask", text("x"))),
]  # fmt: skip

TOP = "QuestionnaireResponse"
AT = "QuestionnaireResponse.item"


def missing(link_id: str, *, of: str = TOP) -> str:
    return f"{of}.item.where(linkId='{link_id}')"


WRONG: list[Wrong] = [
    Wrong("sleep", [], "hours", missing("hours"), "has to be answered"),
    Wrong("sleep", [answer("hours", {"valueDecimal": 25})], "hours", f"{AT}[0].answer[0].value", "at most 24"),
    Wrong("sleep", [answer("hours", {"valueDecimal": -0.5})], "hours", f"{AT}[0].answer[0].value", "at least 0"),
    Wrong("sleep", [answer("hours", {"valueDecimal": 7.25})], "hours", f"{AT}[0].answer[0].value", "decimal places"),
    Wrong("sleep", [answer("hours", {"valueInteger": 7})], "hours", f"{AT}[0].answer[0]", "valueDecimal"),
    Wrong("sleep", [answer("hours", {"valueDecimal": 7}, {"valueDecimal": 8})], "hours", f"{AT}[0].answer", "one answer"),
    Wrong("sleep", [answer("hours", {"valueDecimal": 7}), answer("hours", {"valueDecimal": 8})], "hours", f"{AT}[1]", "more than once"),
    Wrong("sleep", [answer("hours", {"valueDecimal": 7}), answer("dreams", YES)], "dreams", f"{AT}[1]", "no such item"),
    Wrong("smoking", [answer("smokes", NO), group("how-much", answer("a-day", {"valueInteger": 3}))], "how-much", f"{AT}[1]", "not asked"),
    Wrong("smoking", [answer("smokes", YES)], "a-day", f"{missing('how-much')}.item.where(linkId='a-day')", "has to be answered"),
    Wrong("smoking", [answer("smokes", YES), answer("a-day", {"valueInteger": 3})], "a-day", f"{AT}[1]", "into the item how-much"),
    Wrong("smoking", [answer("smokes", YES), group("how-much", answer("a-day", {"valueInteger": 0}))], "a-day", f"{AT}[1].item[0].answer[0].value", "at least 1"),
    Wrong("smoking", [answer("smokes", YES), group("how-much", answer("a-day", {"valueInteger": 2}), answer("since", {"valueDate": "2031"}))], "since", f"{AT}[1].item[1].answer[0].value", "more than 2030"),
    Wrong("smoking", [answer("smokes", YES), group("how-much", answer("smokes", YES))], "smokes", f"{AT}[1].item[0]", "at the top"),
    Wrong("allergies", [answer("any", code("perhaps"))], "any", f"{AT}[0].answer[0].value", "none of the answers"),
    Wrong("allergies", [answer("any", code("no", display="Yes"))], "any", f"{AT}[0].answer[0].value", "display"),
    Wrong("allergies", [answer("any", text("yes"))], "any", f"{AT}[0].answer[0]", "valueCoding"),
    Wrong("allergies", [answer("any", code("yes"))], "to-what", f"{missing('allergy')}.item.where(linkId='to-what')", "has to be answered"),
    Wrong("allergies", [answer("any", code("yes")), *[group("allergy", *ALLERGY)] * 4], "allergy", f"{AT}[4]", "over 3 times"),
    Wrong("allergies", [answer("any", code("yes")), group("allergy", answer("to-what", code("wool")))], "to-what", f"{AT}[1].item[0].answer[0].value", "none of the answers"),
    Wrong("allergies", [answer("any", code("yes")), group("allergy", *ALLERGY), group("allergy", answer("to-what", text("Soap")), answer("other", text("x")))], "other", f"{AT}[2].item[1].answer", "not asked"),
    Wrong("allergies", [answer("any", code("yes")), group("allergy", answer("to-what", text("Soap")), answer("reaction", code("other")))], "other", missing("other", of=f"{AT}[1]"), "has to be answered"),
    Wrong("allergies", [answer("any", code("yes")), group("allergy", answer("to-what", text("Soap")), answer("reaction", code("rash"), code("rash")))], "reaction", f"{AT}[1].item[1].answer", "twice"),
    Wrong("contact", [answer("name", text("A" * 31))], "name", f"{AT}[0].answer[0].value", "at most 30"),
    Wrong("contact", [answer("name", text("  "))], "name", f"{AT}[0].answer[0].value", "blank"),
    Wrong("contact", [answer("name", text("Ada")), answer("zip", text("6061"))], "zip", f"{AT}[1].answer[0].value", "written"),
    Wrong("contact", [answer("name", text("Ada")), answer("zip", text("60614\n"))], "zip", f"{AT}[1].answer[0].value", "written"),
    Wrong("contact", [answer("name", text("Ada")), answer("site", text("https://ada.example"))], "site", f"{AT}[1].answer[0]", "valueUri"),
    Wrong("contact", [answer("name", text("Ada")), answer("call-at", {"valueTime": "07:59:59"})], "call-at", f"{AT}[1].answer[0].value", "less than 08"),
    Wrong("contact", [answer("name", text("Ada")), answer("call-at", {"valueTime": "18:00:01"})], "call-at", f"{AT}[1].answer[0].value", "more than 18"),
    Wrong("contact", [{"linkId": "name", "text": "Not what was asked", "answer": [text("Ada")]}], "name", f"{AT}[0].text", "words"),
    Wrong("scale", [answer("q1", code("0"))], "q2", missing("q2"), "has to be answered"),
    Wrong("scale", [answer("q1", code("2")), answer("q2", code("0"))], "hard", missing("hard"), "has to be answered"),
    Wrong("scale", [answer("q1", code("1")), answer("q2", code("0")), answer("hard", code("very"))], "hard", f"{AT}[2].answer", "not asked"),
    Wrong("both", [answer("adult", YES), answer("pregnant", NO), answer("weeks", {"valueInteger": 9})], "weeks", f"{AT}[2].answer", "not asked"),
    Wrong("both", [answer("pregnant", YES), answer("weeks", {"valueInteger": 9})], "weeks", f"{AT}[1].answer", "not asked"),
    Wrong("nested", [answer("pain", YES)], "where", missing("where", of=f"{AT}[0].answer[0]"), "has to be answered"),
    Wrong("nested", [answer("pain", NO | {"item": [answer("where", text("knee"))]})], "where", f"{AT}[0].answer[0].item[0].answer", "not asked"),
    Wrong("nested", [answer("pain", YES), answer("where", text("knee"))], "where", f"{AT}[1]", "into the item pain"),
    Wrong("nested", [answer("pain", YES | {"item": [answer("where", text("knee")), group("worst", answer("score", {"valueInteger": 11}))]})], "score", f"{AT}[0].answer[0].item[1].item[0].answer[0].value", "at most 10"),
    Wrong("nested", [group("pain", answer("where", text("knee")))], "pain", f"{AT}[0]", "stands in the answer"),
    Wrong("photo", [answer("card", {"valueAttachment": {"contentType": "image/svg+xml", "data": PNG}})], "card", f"{AT}[0].answer[0].value.contentType", "type"),
    Wrong("photo", [answer("card", {"valueAttachment": {"contentType": "image/png", "data": base64.b64encode(b"0" * 101).decode()}})], "card", f"{AT}[0].answer[0].value", "larger"),
    Wrong("photo", [answer("card", {"valueAttachment": {"contentType": "image/png", "title": "none"}})], "card", f"{AT}[0].answer[0].value", "lacks data"),
    Wrong("signed", [answer("agree", YES)], "", f"{TOP}.extension('{SIGNATURE}')", "signed"),
    Wrong("signed", [answer("agree", YES)], "", f"{TOP}.extension('{SIGNATURE}')", "Patient/ada", {"extension": [SIGNED["extension"][0] | {"valueSignature": SIGNED["extension"][0]["valueSignature"] | {"who": {"reference": "Patient/bo"}}}]}),
    Wrong("sum", [answer("a", {"valueInteger": 2}), answer("total", {"valueInteger": 3})], "total", f"{AT}[1].answer", "calculates"),
    Wrong("teams", [MEMBER], "member", missing("member"), "at least 2 times"),
    Wrong("teams", [MEMBER, group("member", answer("told", YES))], "born", missing("born", of=f"{AT}[1]"), "has to be answered"),
    Wrong("weight", [HEAVY], "help", missing("help"), "has to be answered"),
    Wrong("weight", [answer("weight", quantity(301, "kg"))], "weight", f"{AT}[0].answer[0].value", "more than 300"),
    Wrong("weight", [answer("weight", quantity(80, "[lb_av]"))], "weight", f"{AT}[0].answer[0].value", "cannot be compared"),
    Wrong("weight", [answer("weight", quantity(80, "kg")), answer("heavy", YES)], "heavy", f"{AT}[1]", "takes no answer"),
    Wrong("valueset", [answer("color", code("red"), code("pink"))], "color", f"{AT}[0].answer[1].value", "none of the answers"),
    Wrong("valueset", [answer("color", code("red"))], "color", missing("color"), "at least 2"),
    Wrong("gender", [answer("gender", code("other"))], "gender", f"{AT}[0].answer[0].value", "none of the answers"),
    Wrong("sizes", [answer("size", {"valueInteger": 37})], "size", f"{AT}[0].answer[0].value", "none of the answers"),
    Wrong("sizes", [answer("size", {"valueInteger": 36}), answer("day", text("sunday"))], "day", f"{AT}[1].answer[0].value", "none of the answers"),
    Wrong("given", [answer("clinic", text("Elsewhere"))], "clinic", f"{AT}[0].answer", "may not be changed"),
    Wrong("given", [answer("clinic", text("Main Street")), answer("note", text("ab"))], "note", f"{AT}[1].answer[0].value", "at least 3"),
    Wrong("visit", [], "never", missing("never"), "has to be answered"),
    Wrong("visit", [answer("last", {"valueDateTime": "1999-12-31"}) ], "last", f"{AT}[0].answer[0].value", "less than 2000"),
    Wrong("visit", [answer("last", {"valueDateTime": "2029-05"}), answer("never", YES)], "never", f"{AT}[1].answer", "not asked"),
    Wrong("not", [answer("state", code("good")), answer("why", text("x"))], "why", f"{AT}[1].answer", "not asked"),
    Wrong("chain", [answer("one", NO), answer("three", YES)], "three", f"{AT}[1].answer", "not asked"),
    Wrong("chain", [answer("two", YES)], "two", f"{AT}[0].answer", "not asked"),
    Wrong("rule", [answer("from", {"valueDate": "2019-01-01"}), answer("to", {"valueDate": "2018-01-01"})], "", TOP, "end comes after"),
    Wrong("rule", [answer("from", {"valueDate": "2019-01-01"}), answer("to", {"valueDate": "2020-01-01"}), answer("ask", text("x"))], "ask", f"{AT}[2].answer", "not asked"),
]  # fmt: skip
