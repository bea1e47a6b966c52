"""Functions for the `python` provider, called by the Chaos Toolkit and by us alike."""


def add(a, b=1):
    return a + b


def greet(name, configuration=None, secrets=None):
    greeting = (configuration or {}).get("greeting", "hello")
    return {"text": f"{greeting} {name}", "knows": sorted(secrets or {})}


def fail(message="it broke"):
    raise ValueError(message)


def is_even(value):
    return int(value) % 2 == 0


def is_odd(value):
    return not is_even(value)


def nothing():
    return None


def several():
    return [1, 2, {"three": 3.5}]
