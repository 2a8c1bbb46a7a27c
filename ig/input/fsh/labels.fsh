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
* insert Part(out, exception, 0, 1, code, [["The exception of 45 CFR part 171 that the release waits by."]])
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

Instance: label-rules
InstanceOf: OperationDefinition
Usage: #definition
Title: "Rules of labels and of release"
Description: "What a practice labels by rule, when it releases results, and whether what is stored is labelled by that yet."
* insert Operation(label-rules)
* name = "LabelRules"
* affectsState = false
* insert OnType(Patient)
* insert Parameter(out, change, 1, 1, integer, [["How often they were set: what `$set-label-rules` asks for."]])
* insert Parameter(out, running, 1, 1, boolean, [["Whether what is stored is not labelled by them yet."]])
* insert Parameter(out, hides, 1, 1, boolean, [["Whether patients and those who act for them see nothing until it is."]])
* insert Parts(out, label, 0, *, [["A rule: what is of one of its types and carries one of its codes has the label."]])
* insert Part(out, name, 1, 1, string, [["What the rule is called: lower-case letters, digits and hyphens."]])
* insert Part(out, label, 1, 1, code, [["The label: of v3-Confidentiality or v3-ActCode, or `withheld`."]])
* insert Part(out, type, 0, *, code, [["A resource type; none: any."]])
* insert Part(out, code, 0, *, string, [["A code as `system|code`, looked for anywhere in the resource; none: all of the types."]])
* insert Parts(out, release, 0, *, [["A rule: results of the type that carry one of the codes wait for their release."]])
* insert Part(out, name, 1, 1, string, [["What the rule is called."]])
* insert Part(out, type, 1, 1, code, [["The type of result."]])
* insert Part(out, reason, 1, 1, code, [["Why that is allowed, as of `$hold-back`."]])
* insert Part(out, code, 0, *, string, [["A code as `system|code`; none: all of the type."]])
* insert Part(out, hours, 0, 1, integer, [["How long they wait from `issued` on; absent: until staff release them."]])
* insert Part(out, waiting, 1, 1, integer, [["How many results wait by it."]])

Instance: set-label-rules
InstanceOf: OperationDefinition
Usage: #definition
Title: "Set the rules of labels and of release"
Description: "Sets all rules of a practice in place of those it has, or counts what that would do."
* insert Operation(set-label-rules)
* name = "SetLabelRules"
* affectsState = true
* insert OnType(Patient)
* insert Parameter(in, change, 1, 1, integer, [["The `change` that the rules were told with; if they were set since, nothing is done."]])
* insert Parameter(in, preview, 0, 1, boolean, [["Count what they would do, and change nothing."]])
* insert Parts(in, label, 0, *, [["A rule: what is of one of its types and carries one of its codes has the label."]])
* insert Part(in, name, 1, 1, string, [["What the rule is called: lower-case letters, digits and hyphens."]])
* insert Part(in, label, 1, 1, code, [["The label: of v3-Confidentiality or v3-ActCode, or `withheld`."]])
* insert Part(in, type, 0, *, code, [["A resource type; none: any."]])
* insert Part(in, code, 0, *, string, [["A code as `system|code`, looked for anywhere in the resource; none: all of the types."]])
* insert Parts(in, release, 0, *, [["A rule: results of the type that carry one of the codes wait for their release."]])
* insert Part(in, name, 1, 1, string, [["What the rule is called."]])
* insert Part(in, type, 1, 1, code, [["The type of result."]])
* insert Part(in, reason, 1, 1, code, [["Why that is allowed, as of `$hold-back`."]])
* insert Part(in, code, 0, *, string, [["A code as `system|code`; none: all of the type."]])
* insert Part(in, hours, 0, 1, integer, [["How long they wait from `issued` on; absent: until staff release them."]])
* insert Parameter(out, change, 1, 1, integer, [["How often they were set: what `$set-label-rules` asks for."]])
* insert Parameter(out, running, 1, 1, boolean, [["Whether what is stored is not labelled by them yet."]])
* insert Parameter(out, hides, 1, 1, boolean, [["Whether patients and those who act for them see nothing until it is."]])
* insert Parts(out, label, 0, *, [["A rule: what is of one of its types and carries one of its codes has the label."]])
* insert Part(out, name, 1, 1, string, [["What the rule is called: lower-case letters, digits and hyphens."]])
* insert Part(out, label, 1, 1, code, [["The label: of v3-Confidentiality or v3-ActCode, or `withheld`."]])
* insert Part(out, type, 0, *, code, [["A resource type; none: any."]])
* insert Part(out, code, 0, *, string, [["A code as `system|code`, looked for anywhere in the resource; none: all of the types."]])
* insert Parts(out, release, 0, *, [["A rule: results of the type that carry one of the codes wait for their release."]])
* insert Part(out, name, 1, 1, string, [["What the rule is called."]])
* insert Part(out, type, 1, 1, code, [["The type of result."]])
* insert Part(out, reason, 1, 1, code, [["Why that is allowed, as of `$hold-back`."]])
* insert Part(out, code, 0, *, string, [["A code as `system|code`; none: all of the type."]])
* insert Part(out, hours, 0, 1, integer, [["How long they wait from `issued` on; absent: until staff release them."]])
* insert Part(out, waiting, 1, 1, integer, [["How many results wait by it."]])
* insert Parts(out, foreseen, 0, 1, [["In a preview: what the rules would do to what is stored."]])
* insert Part(out, labelled, 1, 1, integer, [["Resources that would get a label which they do not have."]])
* insert Part(out, opened, 1, 1, integer, [["Resources that would lose the label of a rule, whatever else hides them."]])
* insert Part(out, released, 1, 1, integer, [["Results that wait and would be shown."]])
* insert Part(out, looked-at, 1, 1, integer, [["How many resources were looked at."]])
* insert Part(out, whole, 1, 1, boolean, [["Whether that is all there are."]])

Instance: labelled
InstanceOf: OperationDefinition
Usage: #definition
Title: "What of a record is labelled"
Description: "Staff see what of a record is hidden from somebody by itself, and how much is as hidden because of that."
* insert Operation(labelled)
* name = "Labelled"
* affectsState = false
* insert OnInstance(Patient)
* insert Parts(out, label, 0, *, [["A label that a resource has by itself."]])
* insert Part(out, resource, 1, 1, Reference, [["The resource."]])
* insert Part(out, title, 0, 1, string, [["What it is called."]])
* insert Part(out, date, 0, 1, string, [["Its date, as it says it."]])
* insert Part(out, code, 1, 1, code, [["The label."]])
* insert Part(out, source, 1, 1, code, [["`own`, `rule` or `release`."]])
* insert Part(out, name, 0, 1, string, [["The rule."]])
* insert Part(out, reason, 0, 1, string, [["Why the release waits, in words."]])
* insert Part(out, exception, 0, 1, code, [["The exception of 45 CFR part 171 that the release waits by."]])
* insert Part(out, until, 0, 1, dateTime, [["When it is released; absent where it waits for staff."]])
* insert Parts(out, inherited, 0, *, [["What has labels from others."]])
* insert Part(out, type, 1, 1, code, [["The type."]])
* insert Part(out, count, 1, 1, integer, [["How many."]])
* insert Parameter(out, more, 1, 1, boolean, [["Whether there are more than are listed."]])
