"""A reward that nobody earns."""


def never(completions, **columns):
    return [0.0 for _ in completions]
