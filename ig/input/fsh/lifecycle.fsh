// How the portal ends for somebody, and how acting for somebody ends.

Instance: account-close
InstanceOf: OperationDefinition
Usage: #definition
Title: "End the portal for somebody"
Description: "What deleting somebody from a portal means here: the Person is active no more and links nobody, the grants by which the person acts at this practice are inactive, invitations that could still be used are taken back, and tokens, codes and connections for the practice's records end, all in one transaction. The account is then none of this practice; its sign-in stays for other practices. Nothing is erased: versions, grants, invitations and the access log are kept. The owner is told at every contact. An EHR needs the grant-writing permission."
* insert Operation(account-close)
* name = "AccountClose"
* affectsState = true
* insert OnInstance(Person)
* insert Why
* insert Parameter(in, preview, 0, 1, boolean, [["Say what would end, and change nothing."]])
* insert Parameter(out, status, 1, 1, code, [["`closed`; in a preview of what is not closed `open`."]])
* insert Parameter(out, since, 0, 1, instant, [["Since when. Said again, the first time counts."]])
* insert Parameter(out, link, 0, *, Reference, [["A Patient or RelatedPerson that the Person linked."]])
* insert Parameter(out, grant, 0, *, Reference, [["A Consent that is inactive by it."]])
* insert Parameter(out, invitation, 0, *, Reference, [["The Task of an invitation that is taken back by it."]])
* insert Parameter(out, ended-apps, 1, 1, integer, [["How many authorizations of apps end; in a preview, connections."]])
* insert Parameter(out, warning, 1, 1, string, [["What this does not take away from the person."]])

Instance: end-grant
InstanceOf: OperationDefinition
Usage: #definition
Title: "End a grant"
Description: "Ends that somebody acts for a patient: the Consent becomes inactive, and tokens and codes given under it end in the same transaction. Whose record it is and who acted are told. Nothing brings it back: who is to act again is invited again. An EHR needs the grant-writing permission."
* insert Operation(end-grant)
* name = "EndGrant"
* affectsState = true
* insert OnInstance(Consent)
* insert Parameter(in, reason, 1, 1, string, [["Why, in one line of at most 200 signs. It stands in the Provenance, which the patient can read."]])
* insert Parameter(out, status, 1, 1, code, [["`inactive`, or the status in which it was over before, such as `rejected`."]])
* insert Parameter(out, ended-apps, 1, 1, integer, [["How many authorizations of apps ended: 0 where it had ended before."]])

CodeSystem: PortalStatus
Id: portal-status
Title: "Portal Status"
Description: "How the portal account of a Person stands at its practice. The server keeps it in step as a tag of the Person (`meta.tag`); what a client sends of it is not kept. That somebody has to renew what they sign in with is not told by it."
* insert Published
* ^caseSensitive = true
* #none "None" "Nobody has an account as this Person."
* #enabled "Enabled" "There is an account, and it may use its records here."
* #disabled "Disabled" "The practice, or an operator, has closed its records for the account."
* #closed "Closed" "The practice has ended the portal for this Person."

Instance: Person-portal-status
InstanceOf: SearchParameter
Usage: #definition
* url = "https://fhir-portal.example/ig/SearchParameter/Person-portal-status"
* version = "0.1.0"
* name = "PersonPortalStatus"
* status = #active
* experimental = false
* publisher = "fhir-portal"
* description = "How the portal account of a Person stands at its practice: a code of `portal-status`."
* code = #portal-status
* base = #Person
* type = #token
* expression = "Person.meta.tag.where(system = 'https://fhir-portal.example/ig/CodeSystem/portal-status')"
