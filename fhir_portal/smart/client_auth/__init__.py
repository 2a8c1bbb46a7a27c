"""How a client proves which client it is (SMART App Launch 2.2 §4 and §5)."""
