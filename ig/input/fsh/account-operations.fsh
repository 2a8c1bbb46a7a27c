RuleSet: Parts(use, name, min, max, documentation)
* parameter[+].name = #{name}
* parameter[=].use = #{use}
* parameter[=].min = {min}
* parameter[=].max = "{max}"
* parameter[=].documentation = {documentation}

RuleSet: Said(documentation)
* parameter[+].name = #said
* parameter[=].use = #out
* parameter[=].min = 0
* parameter[=].max = "1"
* parameter[=].documentation = {documentation}
* insert SaidParts

RuleSet: SaidParts
* insert Part(out, since, 1, 1, instant, [["When it became like this."]])
* insert Part(out, by, 1, 1, string, [["Who said so: `Practitioner/[id]`, or `client:[client_id]`."]])
* insert Part(out, reason, 1, 1, code, [["A code of account-reason."]])
* insert Part(out, text, 0, 1, string, [["What was said about it."]])
* insert Part(out, until, 0, 1, instant, [["When it is open again by itself."]])
* insert Part(out, proxies, 1, 1, boolean, [["Whether those who act for the person are shut out too."]])

CodeSystem: AccountReason
Id: account-reason
Title: "Account Reason"
Description: "Why a practice closes its records for a portal account, or opens them again."
* insert Published
* ^caseSensitive = true
* #suspected-misuse "Suspected misuse" "Somebody else may be using the account."
* #owner-request "Asked for by the owner" "The person whose account it is asked for it."
* #left-practice "Left the practice" "The person is no longer a patient of the practice, or acts for none."
* #deceased "Deceased" "The person died."
* #duplicate "Duplicate" "The person has another account or another record here."
* #identity-doubt "Identity in doubt" "It is not certain any more that the account is this person's."
* #resolved "Resolved" "The reason for closing it is gone."
* #other "Other" "Said in words."

RuleSet: Why
* insert Parameter(in, reason, 1, 1, code, [["A code of account-reason."]])
* insert Parameter(in, text, 0, 1, string, [["More about it, for the practice alone: at most 1000 characters."]])

Instance: account-disable
InstanceOf: OperationDefinition
Usage: #definition
Title: "Disable an account at a practice"
Description: "Closes the practice's records for the account behind a Person, at once: tokens, codes and connections for them end in the same transaction. The account and its sign-in stay for other practices; where it is known at this practice alone, its sessions end too. The owner is told at every contact."
* insert Operation(account-disable)
* name = "AccountDisable"
* affectsState = true
* insert OnInstance(Person)
* insert Why
* insert Parameter(in, until, 0, 1, instant, [["When the records are open again by themselves. Without it they stay closed until `$account-enable`."]])
* insert Parameter(in, include-proxies, 0, 1, boolean, [["Whether those who act for the person by a grant are shut out of the person's record too. Their own records, and others', are left alone."]])
* insert Parameter(out, status, 1, 1, code, [["`disabled`."]])
* insert Parameter(out, since, 1, 1, instant, [["Since when."]])
* insert Parameter(out, until, 0, 1, instant, [["When it ends by itself."]])
* insert Parameter(out, ended-apps, 1, 1, integer, [["How many authorizations of apps ended."]])
* insert Parameter(out, warning, 1, 1, string, [["What this does not take away from the person."]])

Instance: account-enable
InstanceOf: OperationDefinition
Usage: #definition
Title: "Enable an account at a practice"
Description: "Opens the practice's records again for the account behind a Person. What ended when they were closed stays ended. An EHR needs the grant-writing permission."
* insert Operation(account-enable)
* name = "AccountEnable"
* affectsState = true
* insert OnInstance(Person)
* insert Why
* insert Parameter(out, status, 1, 1, code, [["`enabled`; `disabled` when an operator has shut the account as a whole."]])
* insert Parameter(out, since, 0, 1, instant, [["Since when; absent where nothing was ever closed."]])

Instance: require-credential-renewal
InstanceOf: OperationDefinition
Usage: #definition
Title: "Require a new credential"
Description: "Ends the sessions of the account behind a Person; at the next sign-in its owner has to renew what they sign in with. Nobody else sees or chooses a password."
* insert Operation(require-credential-renewal)
* name = "RequireCredentialRenewal"
* affectsState = true
* insert OnInstance(Person)
* insert Parameter(in, reason, 1, 1, code, [["`suspected-compromise` or `staff-request`."]])
* insert Parameter(out, renewal, 1, 1, code, [["The reason, as it stands at the account."]])

Instance: end-session
InstanceOf: OperationDefinition
Usage: #definition
Title: "Sign somebody out"
Description: "Ends sessions of the account behind a Person: those that are named, or all. With all, remembered browsers are forgotten."
* insert Operation(end-session)
* name = "EndSession"
* affectsState = true
* insert OnInstance(Person)
* insert Parameter(in, session, 0, *, string, [["The id of a session as `$portal-account` tells it."]])
* insert Parameter(in, all, 0, 1, boolean, [["All of them."]])
* insert Parameter(out, ended, 1, 1, integer, [["How many browsers were signed out."]])

Instance: revoke-app
InstanceOf: OperationDefinition
Usage: #definition
Title: "End an app's access"
Description: "Ends what an app holds for the records of this practice through the account behind a Person. The owner is told and finds the receipt among theirs."
* insert Operation(revoke-app)
* name = "RevokeApp"
* affectsState = true
* insert OnInstance(Person)
* insert Parameter(in, app, 1, 1, string, [["The id of a connection as `$portal-account` tells it."]])
* insert Parameter(out, receipt, 1, 1, string, [["The number of the receipt; the same when it is asked for again."]])
* insert Parameter(out, ended, 1, 1, instant, [["When it ended."]])

Instance: portal-accounts
InstanceOf: OperationDefinition
Usage: #definition
Title: "Accounts of a practice"
Description: "The Persons of a practice and how their portal accounts stand, page by page. A page can hold fewer than were asked for and still have one after it."
* insert Operation(portal-accounts)
* name = "PortalAccounts"
* affectsState = false
* insert OnType(Person)
* insert Parameter(in, status, 0, 1, code, [["`enabled`, `disabled`, `closed`, `none`."]])
* insert Parameter(in, kind, 0, 1, code, [["`self`: it stands for a patient. `proxy`: for somebody who acts for one."]])
* insert Parameter(in, signed-in-before, 0, 1, instant, [["Only accounts that nobody signed in to since."]])
* insert Parameter(in, name, 0, 1, string, [["The beginning of a part of the Person's name."]])
* insert Parameter(in, count, 0, 1, integer, [["How many on a page: 50 unless it is said, 200 at most."]])
* insert Parameter(in, page, 0, 1, string, [["What an earlier answer called the page after it. Given alone."]])
* insert Parts(out, account, 0, *, [["One Person."]])
* insert Part(out, person, 1, 1, Reference, [["The Person."]])
* insert Part(out, status, 1, 1, code, [["How the account stands at this practice."]])
* insert Part(out, kind, 0, *, code, [["For whom it stands."]])
* insert Part(out, name, 0, 1, string, [["The Person's name."]])
* insert Part(out, created, 0, 1, instant, [["When the account was made."]])
* insert Part(out, signed-in, 0, 1, instant, [["The latest sign-in."]])
* insert Part(out, since, 0, 1, instant, [["When the practice last closed or opened it."]])
* insert Part(out, by, 0, 1, string, [["Who said so."]])
* insert Part(out, reason, 0, 1, code, [["A code of account-reason."]])
* insert Part(out, text, 0, 1, string, [["What was said about it."]])
* insert Part(out, until, 0, 1, instant, [["When it is open again by itself."]])
* insert Parameter(out, page, 0, 1, string, [["The name of the page after this one. Absent on the last."]])

RuleSet: HowARecoveryStands
* insert Parameter(out, recovery, 1, 1, string, [["What `$approve-recovery` calls it by. No secret."]])
* insert Parameter(out, half, 1, 1, code, [["What the owner needs beside the desk code: `contact`, a code that is sent to them; `birth-date`, with an activation word."]])
* insert Parameter(out, needs-approval, 1, 1, boolean, [["Whether it waits for a second member of staff."]])
* insert Parameter(out, removes-second-factor, 1, 1, boolean, [["Whether the owner's second factor goes when they finish it."]])
* insert Parameter(out, opens, 1, 1, instant, [["From when it can be used: the owner's contacts are told before."]])
* insert Parameter(out, until, 1, 1, instant, [["When it ends."]])

Instance: start-recovery
InstanceOf: OperationDefinition
Usage: #definition
Title: "Help somebody back into their account"
Description: "A member of staff has made sure who somebody is and starts a recovery of the account behind a Person. They hand the desk code over, which is one half; nobody on the staff sees or chooses a password. All contacts of the owner are told."
* insert Operation(start-recovery)
* name = "StartRecovery"
* affectsState = true
* insert OnInstance(Person)
* insert Parameter(in, basis, 1, 1, code, [["How it was made sure: `photo-id`, `known-in-person`, `video-call-with-photo-id`."]])
* insert HowARecoveryStands
* insert Parameter(out, desk-code, 1, 1, string, [["To be handed over to the owner. Shown this once."]])

Instance: approve-recovery
InstanceOf: OperationDefinition
Usage: #definition
Title: "Approve of a recovery"
Description: "A second member of staff approves of a recovery that another one started with `$start-recovery`."
* insert Operation(approve-recovery)
* name = "ApproveRecovery"
* affectsState = true
* insert OnInstance(Person)
* insert Parameter(in, recovery, 1, 1, string, [["The recovery, as `$start-recovery` called it."]])
* insert HowARecoveryStands
* insert Parameter(out, activation-word, 0, 1, string, [["To be handed over to the owner, where no code can be sent. Shown this once."]])
