"""Training: the loop of a real run and what it is made of."""
