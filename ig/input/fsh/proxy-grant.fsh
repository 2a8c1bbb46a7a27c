Profile: ProxyGrant
Parent: Consent
Id: proxy-grant
Title: "Proxy Grant"
Description: """
One person may see named sections of the patient's record for a time, and act in them where the
grant says so. Nothing is allowed but what a nested provision permits. A Consent outside this
profile, or one with a modifier extension anywhere, allows nothing. Two active grants for the same
patient and person allow nothing until one of them is ended.
"""
* insert Published
* obeys pg-1 and pg-2 and pg-3
* implicitRules 0..0
* contained 0..0
* modifierExtension 0..0
* status MS
* status ^short = "Only an active grant allows anything"
* scope.coding 1..1
* scope = $consent-scope#patient-privacy
* category 1..1
* category.coding 1..1
* category.coding.system 1..1
* category.coding.system = $portal-consent-category
* category.coding.code 1..1
* category.coding.code = #proxy-grant
* patient 1..1 MS
* patient only Reference(Patient)
* patient.reference 1..1
* patient ^short = "Whose record it is"
* dateTime MS
* performer 1..* MS
* performer ^short = "Who granted it: the patient, a parent or guardian, or the practice on evidence"
* source[x] only Reference(DocumentReference or Contract or QuestionnaireResponse or Consent)
* source[x] MS
* source[x] ^short = "The evidence: a signed form, a court order, a power of attorney"
* policy 0..0
* policyRule 1..1
* policyRule.coding 1..1
* policyRule = $act-code#OPTOUT
* policyRule ^short = "Nothing by default"
* verification 0..0
* provision 1..1 MS
  * modifierExtension 0..0
  * type 0..0
  * period 1..1 MS
    * start 1..1
    * end ^short = "Last moment; an end that is only a date runs to midnight in the practice's zone"
  * actor 1..1 MS
    * modifierExtension 0..0
    * role = $role-code#GRANTEE
    * reference only Reference(RelatedPerson)
    * reference.reference 1..1
    * reference ^short = "Who may see the record and act for the patient"
  * action 0..0
  * securityLabel 0..0
  * purpose 0..0
  * class 0..0
  * code 0..0
  * dataPeriod 0..0
  * data 0..0
  * provision 1..* MS
  * provision obeys pg-4
  * provision ^short = "One for each section"
  * provision.modifierExtension 0..0
  * provision.type 1..1
  * provision.type = #permit
  * provision.period 0..0
  * provision.actor 0..0
  * provision.action 1..2 MS
  * provision.action from ProxyGrantAction (required)
  * provision.action ^short = "access to see, and correct to act"
  * provision.action.coding 1..1
  * provision.securityLabel 0..0
  * provision.purpose 0..0
  * provision.class 0..0
  * provision.code 1..1 MS
  * provision.code from PortalSectionCodes (required)
  * provision.code.coding 1..1
  * provision.dataPeriod 0..0
  * provision.data 0..0
  * provision.provision 0..0

Invariant: pg-1
Description: "A section is granted once."
Severity: #error
Expression: "provision.provision.code.coding.code.isDistinct()"

Invariant: pg-2
Description: "The patient and the person are named by reference, not by identifier or version."
Severity: #error
Expression: "patient.reference.all($this.matches('^(.+/)?Patient/[A-Za-z0-9.-]{1,64}$')) and provision.actor.reference.reference.all($this.matches('^(.+/)?RelatedPerson/[A-Za-z0-9.-]{1,64}$'))"

Invariant: pg-3
Description: "A grant that the patient did not give themselves names its evidence."
Severity: #error
Expression: "source.exists() or performer.reference.exists($this = %resource.patient.reference)"

Invariant: pg-4
Description: "Acting in a section includes seeing it, and neither is said twice."
Severity: #error
Expression: "action.coding.where(code = 'access').exists() and action.coding.code.isDistinct()"

ValueSet: ProxyGrantAction
Id: proxy-grant-action
Title: "Proxy Grant Action"
Description: "What a grant may allow in a section: to see it, or to act in it for the patient (book, answer, send, change)."
* insert Published
* insert Published
* $consent-action#access
* $consent-action#correct
