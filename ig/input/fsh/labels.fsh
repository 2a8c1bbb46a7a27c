RuleSet: OnOneRecord(code)
* insert Operation({code})
* affectsState = true
* insert OnInstance(Patient)
* insert Parameter(in, resource, 1, 1, Reference, [["What of the record it is about."]])
* insert Parameter(in, reason, 1, 1, string, [["Why: 1 to 500 signs. It stands in the Provenance, for staff to read."]])
* insert Parameter(out, label, 0, *, code, [["The labels it has now, with those of others."]])

Instance: labels
InstanceOf: OperationDefinition
Usage: #definition
Title: "Why something is hidden"
Description: "Staff see which labels a resource of a record has, and where each comes from: what it carries itself, a rule of the practice, its release, or another resource."
* insert Operation(labels)
* name = "Labels"
* affectsState = false
* insert OnInstance(Patient)
* insert Parameter(in, resource, 1, 1, Reference, [["What of the record it is about."]])
* insert Parts(out, label, 0, *, [["A label it has."]])
* insert Part(out, code, 1, 1, code, [["The label."]])
* insert Part(out, source, 1, 1, code, [["`own`, `rule`, `release`, `reference` (what it refers to), `list` (what lists it) or `settling` (it is being worked out, and hidden until then)."]])
* insert Part(out, name, 0, 1, string, [["The rule."]])
* insert Part(out, reason, 0, 1, string, [["Why the release waits, or why it is being worked out, in words."]])
* insert Part(out, until, 0, 1, dateTime, [["When it is released; absent where it waits for staff."]])
* insert Part(out, from, 0, 1, Reference, [["The resource that it comes from."]])

Instance: label
InstanceOf: OperationDefinition
Usage: #definition
Title: "Label by hand"
Description: "Staff put labels on a resource of a record, or take some away that it carries itself: a new version with other `meta.security`, and its Provenance. What refers to it is as hidden."
* insert OnOneRecord(label)
* name = "Label"
* insert Parameter(in, add, 0, *, Coding, [["A label to put there: out of v3-Confidentiality and v3-ActCode."]])
* insert Parameter(in, remove, 0, *, Coding, [["A label to take away."]])

Instance: release
InstanceOf: OperationDefinition
Usage: #definition
Title: "Release a result"
Description: "Staff release a result that waits, or that was held back. What an EHR has tagged `withheld` stays so."
* insert OnOneRecord(release)
* name = "Release"

Instance: hold-back
InstanceOf: OperationDefinition
Usage: #definition
Title: "Hold a result back"
Description: "Staff hold a result back until somebody releases it."
* insert OnOneRecord(hold-back)
* name = "HoldBack"
* insert Parameter(in, exception, 1, 1, code, [["Why that is allowed: `preventing-harm`, `privacy`, `security`, `infeasibility` or `patient-request`."]])
