Instance: amount-due
InstanceOf: OperationDefinition
Usage: #definition
Title: "What is due on a bill"
Description: "How a bill stands: what it comes to, what was paid, what is being paid, and what is left. A payment is a PaymentNotice whose request is the Invoice, whoever wrote it."
* insert Operation(amount-due)
* name = "AmountDue"
* affectsState = false
* insert OnInstance(Invoice)
* insert Parameter(out, status, 1, 1, code, [["The status of the Invoice. Only one that is `issued` is paid."]])
* insert Parameter(out, total, 1, 1, Money, [["What the bill comes to: its totalGross, or else its totalNet."]])
* insert Parameter(out, paid, 1, 1, Money, [["What was paid so far."]])
* insert Parameter(out, under-way, 1, 1, Money, [["What is being paid: begun, and it is not known yet how it ends."]])
* insert Parameter(out, due, 1, 1, Money, [["What is left to be paid. Nothing, where the bill is not open for payment."]])
* insert Parts(out, payment, 0, *, [["Each payment that was made."]])
* insert Part(out, notice, 1, 1, Reference, [["Its PaymentNotice."]])
* insert Part(out, amount, 1, 1, Money, [["How much."]])
* insert Part(out, date, 0, 1, date, [["On what day."]])

Instance: pay
InstanceOf: OperationDefinition
Usage: #definition
Title: "Pay a bill"
Description: "Begins to pay a bill, or part of it. What is to be paid is reserved, and the payer goes on at the page of the practice's payment provider: card and account numbers never come to this server. How it ended is in `$amount-due`; a bill of which nothing is left becomes `balanced`. Sent again with the same key it is the same payment."
* insert Operation(pay)
* name = "Pay"
* affectsState = true
* insert OnInstance(Invoice)
* insert Parameter(in, idempotency-key, 1, 1, string, [["What the caller calls this payment by, so that sending it twice pays once: 8 to 64 of A-Z a-z 0-9 . _ -."]])
* insert Parameter(in, amount, 0, 1, Money, [["How much of it; all that is due where it is missing."]])
* insert Parameter(out, payment, 1, 1, string, [["What the provider calls the payment by."]])
* insert Parameter(out, status, 1, 1, code, [["`begun`, `paid`, or `ended`: it was not paid and will not be; choose a new key to try again."]])
* insert Parameter(out, amount, 1, 1, Money, [["How much is paid by it."]])
* insert Parameter(out, pay-at, 0, 1, url, [["The provider's page, where the payer goes on. It is for this payer alone."]])
* insert Parameter(out, notice, 0, 1, Reference, [["The PaymentNotice, once it is paid."]])

Instance: balance
InstanceOf: OperationDefinition
Usage: #definition
Title: "The balance of an account"
Description: "What somebody owes, and what makes it: their bills, what was paid of each, what is being paid, and what waits for an insurer. It is reckoned when it is asked for, of all bills that the caller sees, or of those of one Account. That is returned with the balance as R5 has it (`http://hl7.org/fhir/5.0/StructureDefinition/extension-Account.balance`), in the place of any that a client wrote."
* insert Operation(balance)
* name = "Balance"
* affectsState = false
* insert OnInstance(Account)
* type = true
* insert Parameter(in, patient, 0, 1, id, [["Whose bills: for staff and systems of the practice, who say no Account."]])
* insert Parameter(out, state, 1, 1, code, [["`known`; `none`: the practice has sent no bill, so that nothing is known to be due and nothing is known not to be; `unknown`: a bill cannot be reckoned with, or there are too many."]])
* insert Parts(out, sum, 0, *, [["One for each currency, where the state is `known`. Nothing due is a sum of 0."]])
* insert Part(out, total, 1, 1, Money, [["What the bills come to."]])
* insert Part(out, paid, 1, 1, Money, [["What was paid of them, or is settled: of a bill that is `balanced` all."]])
* insert Part(out, under-way, 1, 1, Money, [["What is being paid."]])
* insert Part(out, due, 1, 1, Money, [["What is left to be paid."]])
* insert Parts(out, insurer, 0, *, [["Each claim that an insurer has not answered yet, as far as the caller sees claims and their answers."]])
* insert Part(out, claim, 1, 1, Reference, [["The Claim."]])
* insert Part(out, amount, 0, 1, Money, [["What it is for, where it says."]])
* insert Part(out, created, 0, 1, dateTime, [["When it was made."]])
* insert Parts(out, bill, 0, *, [["Each bill that is or was to be paid (`issued`, `balanced`), the latest first."]])
* insert Part(out, invoice, 1, 1, Reference, [["The Invoice."]])
* insert Part(out, status, 1, 1, code, [["Its status."]])
* insert Part(out, date, 0, 1, dateTime, [["When it was made out."]])
* insert Part(out, total, 0, 1, Money, [["What it comes to. This and the next are absent where it cannot be reckoned with."]])
* insert Part(out, paid, 0, 1, Money, [["What was paid of it."]])
* insert Part(out, under-way, 0, 1, Money, [["What is being paid of it."]])
* insert Part(out, due, 0, 1, Money, [["What is left of it."]])
* insert Part(out, problem, 0, 1, string, [["Why it cannot be reckoned with."]])
* insert Parameter(out, account, 0, 1, Account, [["The Account with its balance, where one was asked for. Without a balance where that is not known."]])

Instance: payment
InstanceOf: OperationDefinition
Usage: #definition
Title: "How a payment stands"
Description: "How a payment that the caller began by `$pay` stands: it waits for them at the provider's page, it is paid, or it ended without being paid. The payment of somebody else is not there."
* insert Operation(payment)
* name = "Payment"
* affectsState = false
* insert OnType(Invoice)
* insert Parameter(in, payment, 1, 1, string, [["What the provider calls it by, as `$pay` said."]])
* insert Parameter(out, invoice, 1, 1, Reference, [["The bill."]])
* insert Parameter(out, status, 1, 1, code, [["`begun`, `paid`, or `ended`: it was not paid and will not be."]])
* insert Parameter(out, amount, 1, 1, Money, [["How much is paid by it."]])
* insert Parameter(out, begun, 1, 1, instant, [["When it was begun."]])
* insert Parameter(out, pay-at, 0, 1, url, [["The provider's page, while it waits there."]])
* insert Parameter(out, notice, 0, 1, Reference, [["The PaymentNotice, once it is paid."]])

Instance: receipt
InstanceOf: OperationDefinition
Usage: #definition
Title: "Receipt of a payment"
Description: "A document that says what was paid, when, by whom, for which bill, and by what reference: a Binary that is stored nowhere, made of the payment as it is now. A client that asks for the media type gets the content itself."
* insert Operation(receipt)
* name = "Receipt"
* affectsState = false
* insert OnInstance(PaymentNotice)
* insert Parameter(in, format, 0, 1, code, [["`pdf` (without it) or `html`."]])
* insert Parameter(out, return, 1, 1, Binary, [["The receipt."]])

Instance: dispute
InstanceOf: OperationDefinition
Usage: #definition
Title: "A word against a bill"
Description: "Says that a bill is not right. It is a Task of the practice's (`bill-dispute`) that the patient sees, with what becomes of it: whoever works on bills answers it by `$answer-dispute`, a system of the practice by an update. Said once more in the same words while it is open it is the same one."
* insert Operation(dispute)
* name = "Dispute"
* affectsState = true
* insert OnInstance(Invoice)
* insert Parameter(in, reason, 1, 1, string, [["What is not right, in plain text of up to 1000 signs."]])
* insert Parameter(out, task, 1, 1, Reference, [["The Task."]])
* insert Parameter(out, status, 1, 1, code, [["`requested`, `in-review`, `corrected` or `upheld`."]])

Instance: answer-dispute
InstanceOf: OperationDefinition
Usage: #definition
Title: "An answer to a word against a bill"
Description: "Says what becomes of what somebody said against a bill. The patient reads it, and is told that there is an answer."
* insert Operation(answer-dispute)
* name = "AnswerDispute"
* affectsState = true
* insert OnInstance(Task)
* insert Parameter(in, status, 1, 1, code, [["`in-review`, `corrected` (the bill was not right, and is changed) or `upheld` (it is right). The last two end it."]])
* insert Parameter(in, reason, 0, 1, string, [["What the patient reads; needed where it ends."]])
* insert Parameter(in, hold, 0, 1, boolean, [["While it is in review: that the practice does not ask for the money meanwhile. Reminders of a payment plan wait."]])
* insert Parameter(out, task, 1, 1, Reference, [["The Task."]])
* insert Parameter(out, status, 1, 1, code, [["How it stands now."]])

Instance: payment-plan
InstanceOf: OperationDefinition
Usage: #definition
Title: "A plan to pay a bill in parts"
Description: "Agrees on parts in which what is due of a bill is paid, one a month, within what the practice allows. It is a Task (`payment-plan`) that the patient sees. Nothing is charged by it: no card or account is kept, each part is paid by `$pay`, and reminded of before its day. It is completed when nothing is due any more."
* insert Operation(payment-plan)
* name = "PaymentPlan"
* affectsState = true
* insert OnInstance(Invoice)
* insert Parameter(in, parts, 1, 1, positiveInt, [["In how many parts."]])
* insert Parameter(in, first, 0, 1, date, [["By when the first one; a month from today where it is missing, and no later than that."]])
* insert Parameter(out, task, 1, 1, Reference, [["The Task."]])
* insert Parameter(out, status, 1, 1, code, [["`in-progress`, `completed` or `cancelled`."]])
* insert Parts(out, part, 1, *, [["Each part."]])
* insert Part(out, due, 1, 1, date, [["By when."]])
* insert Part(out, amount, 1, 1, Money, [["How much."]])

Instance: cancel-plan
InstanceOf: OperationDefinition
Usage: #definition
Title: "End a payment plan"
Description: "Ends a plan before all of it is paid. What is due of the bill is due as before."
* insert Operation(cancel-plan)
* name = "CancelPlan"
* affectsState = true
* insert OnInstance(Task)
* insert Parameter(in, reason, 0, 1, string, [["Why."]])
* insert Parameter(out, task, 1, 1, Reference, [["The Task."]])
* insert Parameter(out, status, 1, 1, code, [["How it stands now."]])

Instance: payments
InstanceOf: OperationDefinition
Usage: #definition
Title: "Payments under way"
Description: "The payments of the practice of which it is not known yet how they end, the oldest first: what is kept back of which bill, and since when."
* insert Operation(payments)
* name = "Payments"
* affectsState = false
* insert OnType(Invoice)
* insert Parts(out, payment, 0, *, [["Each payment."]])
* insert Part(out, payment, 1, 1, string, [["What the provider calls it by."]])
* insert Part(out, invoice, 1, 1, Reference, [["The bill."]])
* insert Part(out, amount, 1, 1, Money, [["How much."]])
* insert Part(out, begun, 1, 1, instant, [["When it was begun."]])
