Instance: confirm-proxy
InstanceOf: OperationDefinition
Usage: #definition
Title: "Confirm who acts for a patient"
Description: "Opens the record of a patient for the account that used an invitation to act for them. It is for a member of staff who had no other part in the invitation and has made sure who the person is: they type the number that the page of that person shows. The grants that were proposed become active, and the patient is told."
* insert Operation(confirm-proxy)
* name = "ConfirmProxy"
* affectsState = true
* insert OnInstance(Task)
* insert Parameter(in, number, 1, 1, string, [["The number that the person's own page shows, of six digits."]])
* insert Parameter(in, alone, 0, 1, string, [["Why it is done without a second member of staff. Taken only where nobody else there has `proxies`; it stands in the Task and in the Provenance."]])
* insert Parameter(out, invitation, 1, 1, Reference, [["The Task of the invitation."]])
* insert Parameter(out, status, 1, 1, code, [["`redeemed`."]])
* insert Parameter(out, told, 1, 1, integer, [["How many messages tell the patient, or who acts for them in full. 0: nobody could be told; write a letter."]])

Instance: cancel-recovery
InstanceOf: OperationDefinition
Usage: #definition
Title: "Take a recovery back"
Description: "Ends a recovery that staff of the practice started with `$start-recovery`: desk code and activation word open nothing any more, and what the owner began with them is over. The owner is told."
* insert Operation(cancel-recovery)
* name = "CancelRecovery"
* affectsState = true
* insert OnInstance(Person)
* insert Parameter(in, recovery, 1, 1, string, [["The recovery, as `$start-recovery` and `$portal-account` call it."]])
* insert Parameter(out, recovery, 1, 1, string, [["The one that was ended."]])
* insert Parameter(out, ended, 1, 1, instant, [["When."]])
