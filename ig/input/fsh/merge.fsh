Instance: merge
InstanceOf: OperationDefinition
Usage: #definition
Title: "Merge two Patients"
Description: "One human has two Patients at a practice. Accounts, related persons, grants and live invitations go to the one that stays, in one transaction; connections of apps to the other end, each with a receipt. The source Patient becomes inactive and is linked as replaced. Clinical resources are moved by the practice's EHR. Within a day `$undo-merge` takes it back. An EHR needs the grant-writing permission."
* insert Operation(merge)
* name = "Merge"
* affectsState = true
* insert OnType(Patient)
* insert Parameter(in, source-patient, 1, 1, Reference, [["The Patient that goes."]])
* insert Parameter(in, target-patient, 1, 1, Reference, [["The Patient that stays."]])
* insert Parameter(in, result-patient, 0, 1, Patient, [["What the target Patient is to say from now on; for an EHR. Its labels stay."]])
* insert Parameter(in, preview, 0, 1, boolean, [["Change nothing, and tell what would be."]])
* insert Parameter(in, force-accounts, 0, 1, boolean, [["Both Patients are accounts' own records, and it was seen that the accounts are one person's: the account of the target stays, that of the source holds no record here any more."]])
* insert Parameter(in, accept, 0, 1, string, [["The `accept` of a preview, where somebody would see more by the merge than now."]])
* insert Parameter(out, outcome, 1, 1, OperationOutcome, [["What was done."]])
* insert Parameter(out, result, 0, 1, Patient, [["The Patient that stays, as it is now."]])
* insert Parts(out, moved, 0, *, [["What goes over or ends."]])
* insert Part(out, what, 1, 1, Reference, [["The resource."]])
* insert Part(out, change, 1, 1, code, [["`person`, `related-person`, `grant`, `grant-ended`, `invitation`, `invitation-ended`."]])
* insert Parts(out, gains, 0, *, [["Who sees something of the surviving record by this that they may not see now."]])
* insert Part(out, who, 1, 1, Reference, [["The Person, the RelatedPerson, or the Task of an invitation."]])
* insert Part(out, through, 1, 1, Reference, [["What lets them."]])
* insert Part(out, record, 1, 1, Reference, [["The surviving record."]])
* insert Part(out, text, 1, 1, string, [["What they see."]])
* insert Parts(out, loses, 0, *, [["Who does not go over."]])
* insert Part(out, who, 1, 1, Reference, [["The Person, the RelatedPerson, or the Task of an invitation."]])
* insert Part(out, text, 1, 1, string, [["Why."]])
* insert Parameter(out, accept, 0, 1, string, [["Stands for exactly these gains. Absent where there are none."]])
* insert Parameter(out, ended-apps, 0, 1, integer, [["How many connections of apps ended."]])
* insert Parameter(out, told, 0, 1, integer, [["How many messages tell whose record the target is that somebody will use it."]])
* insert Parameter(out, undo-until, 0, 1, instant, [["Until when it can be taken back."]])

Instance: undo-merge
InstanceOf: OperationDefinition
Usage: #definition
Title: "Take a merge back"
Description: "Gives back what the merge of this Patient into another one moved, exactly as it was, within a day. If something of it was changed since, nothing is taken back and the answer names it. What ended stays ended. An EHR needs the grant-writing permission."
* insert Operation(undo-merge)
* name = "UndoMerge"
* affectsState = true
* insert OnInstance(Patient)
* insert Parameter(out, given-back, 1, 1, integer, [["How many resources are as they were before."]])
