// Invented people.

RuleSet: Grant(patient, person)
* status = #active
* scope = $consent-scope#patient-privacy
* category = $portal-consent-category#proxy-grant
* patient = Reference({patient})
* policyRule = $act-code#OPTOUT
* provision.actor.role = $role-code#GRANTEE
* provision.actor.reference = Reference({person})

RuleSet: See(section)
* provision.provision[+].type = #permit
* provision.provision[=].code = $section#{section}
* provision.provision[=].action = $consent-action#access

RuleSet: Act(section)
* provision.provision[+].type = #permit
* provision.provision[=].code = $section#{section}
* provision.provision[=].action[0] = $consent-action#access
* provision.provision[=].action[1] = $consent-action#correct

Instance: child
InstanceOf: Patient
Usage: #example
Title: "A child"
Description: "The record in the guardian's grant."
* name.given = "Pippa"
* name.family = "Samplechild"
* gender = #female
* birthDate = 2019-04-02

Instance: child-guardian
InstanceOf: RelatedPerson
Usage: #example
Title: "The child's mother"
Description: "She signs in with her own account and acts for the child."
* active = true
* patient = Reference(child)
* relationship = $role-code#MTH
* name.given = "Marit"
* name.family = "Samplechild"

Instance: child-guardian-evidence
InstanceOf: DocumentReference
Usage: #example
Title: "The guardian's evidence"
Description: "The form the mother signed at the practice."
* status = #current
* type = $loinc#64292-6 "Release of information consent"
* subject = Reference(child)
* date = "2026-01-12T09:30:00Z"
* content.attachment.contentType = #application/pdf
* content.attachment.title = "Proxy access form, signed"

Instance: front-desk
InstanceOf: Practitioner
Usage: #example
Title: "Front desk"
Description: "Who entered the guardian's grant."
* name.text = "Front Desk Example"

Instance: guardian-grant
InstanceOf: ProxyGrant
Usage: #example
Title: "A mother's grant"
Description: "The mother sees the whole record and acts in appointments, messages and forms, until the child comes of age."
* insert Grant(child, child-guardian)
* dateTime = "2026-01-12T09:30:00Z"
* performer = Reference(front-desk)
* sourceReference = Reference(child-guardian-evidence)
* provision.period.start = "2026-01-12"
* provision.period.end = "2037-04-01"
* insert Act(demographics)
* insert See(insurance)
* insert Act(appointments)
* insert Act(messages)
* insert See(documents)
* insert Act(forms)
* insert See(results)
* insert See(medications)
* insert See(immunizations)
* insert See(health-summary)
* insert See(visits)
* insert See(billing)

Instance: adult
InstanceOf: Patient
Usage: #example
Title: "An adult"
Description: "The record in the helper's grant."
* name.given = "Oswin"
* name.family = "Samplegrove"
* gender = #male
* birthDate = 1951-09-20

Instance: adult-helper
InstanceOf: RelatedPerson
Usage: #example
Title: "A neighbour who helps"
Description: "He looks after appointments."
* active = true
* patient = Reference(adult)
* relationship = $role-code#NBOR
* name.given = "Tavi"
* name.family = "Samplebrook"

Instance: helper-grant
InstanceOf: ProxyGrant
Usage: #example
Title: "A grant by the patient"
Description: "The patient lets a neighbour handle appointments and see the medications for six months."
* insert Grant(adult, adult-helper)
* dateTime = "2026-03-01T18:05:00Z"
* performer = Reference(adult)
* provision.period.start = "2026-03-01T18:05:00Z"
* provision.period.end = "2026-08-31"
* insert Act(appointments)
* insert See(medications)
