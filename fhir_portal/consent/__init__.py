"""What a patient allowed: grants, their sections, and the rules that judge them."""
