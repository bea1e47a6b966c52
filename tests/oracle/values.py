"""Answers questions about values, one JSON object a line: what the Chaos Toolkit's library makes of
a tolerance, a substitution or a configuration, and whether a document fits a JSON Schema."""

import json
import logging
import os
import sys

from chaoslib import substitute
from chaoslib.configuration import load_configuration
from chaoslib.hypothesis import ensure_hypothesis_tolerance_is_valid, within_tolerance
from jsonschema import Draft202012Validator

logging.disable(logging.CRITICAL)
validators = {}


def tolerance(question):
    try:
        ensure_hypothesis_tolerance_is_valid(question["tolerance"])
    except Exception as x:
        return {"invalid": repr(x)}
    try:
        return {"answer": bool(within_tolerance(question["tolerance"], question["value"]))}
    except Exception as x:
        return {"raises": repr(x)}


def substitution(question):
    return {"answer": substitute(question["data"], question["configuration"], question["secrets"])}


def configuration(question):
    kept = dict(os.environ)
    try:
        os.environ.update(question["environment"])
        answer = load_configuration(question["configuration"], dict(question["variables"]))
        return {"answer": json.loads(json.dumps(answer, allow_nan=False))}
    except Exception as x:
        return {"raises": repr(x)}
    finally:
        os.environ.clear()
        os.environ.update(kept)


def schema(question):
    validators["schema"] = Draft202012Validator(question["schema"])
    Draft202012Validator.check_schema(question["schema"])
    return {"answer": True}


def document(question):
    return {"answer": validators["schema"].is_valid(question["document"])}


ASK = {f.__name__: f for f in (tolerance, substitution, configuration, schema, document)}

# The parser of JSONPath says on standard output what it dislikes.
answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    question = json.loads(line)
    answers.write(json.dumps(ASK[question["ask"]](question)) + "\n")
answers.flush()
