"""Bills and how they are paid: amounts, what is due, and the provider that takes the money."""
