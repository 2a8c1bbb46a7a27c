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
