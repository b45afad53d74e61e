"""A finished stage trained once more, step by step, with what every sample of every step did to every benchmark."""
