"""Whether a model may serve, when it is time for another one, and what keeps the shop's model up to date."""
