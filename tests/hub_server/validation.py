"""What the loopback Hub asks of a card's header: a documented part of what the real validator does."""

from __future__ import annotations

import re
from typing import Any

import yaml

TEXTS = ("license", "library_name", "pipeline_tag", "pretty_name")
LISTS = ("tags", "datasets", "metrics", "language", "size_categories", "task_categories")
REPO_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def card_errors(text: str) -> list[str]:
    """Sentences about what is wrong; a card without a header is fine, as on the Hub."""
    found = re.match(r"\s*---\r?\n(.*?)\r?\n?---\s*(\n|$)", text, flags=re.DOTALL)
    if found is None:
        return []
    try:
        header = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        return [f"Invalid YAML: {error}"]
    if header is None:
        return []
    if not isinstance(header, dict):
        return ["the metadata must be a mapping"]
    errors = [f'"{key}" must be a string' for key in TEXTS if not isinstance(header.get(key, ""), (str, list))]
    for key in LISTS:
        values = header.get(key, [])
        if not isinstance(values, (str, list)) or (
            isinstance(values, list) and not all(isinstance(v, str) for v in values)
        ):
            errors.append(f'"{key}" must be a list of strings')
    if isinstance(header.get("datasets"), list):
        errors += [f'"datasets": {v!r} is no id' for v in header["datasets"] if not REPO_ID.fullmatch(str(v))]
    return errors + _model_index_errors(header.get("model-index", []))


def _model_index_errors(index: Any) -> list[str]:
    if not isinstance(index, list):
        return ['"model-index" must be a list']
    errors = []
    for model in index:
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            errors.append('"model-index[].name" is required')
            continue
        for result in model.get("results", []):
            if not isinstance(result.get("task", {}).get("type"), str):
                errors.append('"model-index[].results[].task.type" is required')
            dataset = result.get("dataset", {})
            if not isinstance(dataset.get("name"), str) or not isinstance(dataset.get("type"), str):
                errors.append('"model-index[].results[].dataset.name" and "type" are required')
            for metric in result.get("metrics", []):
                if not isinstance(metric.get("type"), str) or metric.get("value") is None:
                    errors.append('"model-index[].results[].metrics[].type" and "value" are required')
    return errors
