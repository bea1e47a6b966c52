"""Reads figures in the OpenMetrics format and says what is wrong with them by Prometheus's conventions for names, one
problem a line; then every family, its type and its label names, as JSON."""

import json
import re
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

UNITS = ("_seconds", "_bytes", "_ratio", "_celsius", "_meters", "_volts", "_joules", "_grams")
# Other units than the base ones, which no name may end with.
WRONG = ("_milliseconds", "_ms", "_minutes", "_hours", "_kilobytes", "_megabytes", "_percent", "_count", "_sum", "_bucket")

problems, found = [], {}
for family in text_string_to_metric_families(sys.stdin.read()):
    name = family.name
    if not re.fullmatch(r"backburn(_[a-z0-9]+)+", name):
        problems.append(f"{name}: not backburn_ and words in lower case")
    if not family.documentation.strip():
        problems.append(f"{name}: no HELP")
    if family.type not in ("counter", "gauge", "histogram", "summary", "info"):
        problems.append(f"{name}: its TYPE is {family.type}")
    if name.endswith(WRONG) or name.endswith("_total"):
        problems.append(f"{name}: its suffix is not that of a base unit")
    if family.type == "histogram" and not name.endswith(UNITS):
        problems.append(f"{name}: a histogram without a unit")
    labels = set()
    for sample in family.samples:
        labels |= set(sample.labels) - {"le"}
        if family.type == "counter" and not sample.name.endswith(("_total", "_created")):
            problems.append(f"{sample.name}: a counter that does not end with _total")
    for label in labels:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", label):
            problems.append(f"{name}: the label {label}")
    found[name] = {"type": family.type, "labels": sorted(labels), "series": len(family.samples)}
print(json.dumps({"problems": problems, "families": found}))
