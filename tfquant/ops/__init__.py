"""Pure tensor maps without state: rounding and its relaxations, gradients, seeded noise."""
