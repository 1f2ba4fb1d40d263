"""Helm's library, in the venv of its own: the chart's folder as argument, values on standard input, what came of it out."""

import json
import sys
from typing import Any

import helm_python

folder = sys.argv[1]
values = json.load(sys.stdin)
chart = helm_python.Chart.load(folder)
told: dict[str, Any] = {"error": None, "manifests": {}, "lint": None}
try:
    chart.validate_schema(values)
    told["manifests"] = chart.render(values, name="release", namespace="space")
    told["lint"] = helm_python.lint(folder, values, strict=True, namespace="space")
except helm_python.HelmError as error:
    told["error"] = str(error)
json.dump(told, sys.stdout)
