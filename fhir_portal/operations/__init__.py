"""The portal's operations: one file for each OperationDefinition of the guide (``ig/input/fsh``).

What goes in is held against the definition before an operation sees it, what comes out is built by
it. `fhir_portal.access.operations` says who may call what.
"""
