"""Checks custom resources against their definitions as the API server would, and refuses unknown fields too."""

import os
from pathlib import Path

import jsonschema
import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The definitions are a megabyte each; libyaml reads one in half a second."""


BESIDE = Path(__file__).parents[3] / "shared" / "cluster_kit" / "crds"
"""Where those who work on this repository keep the definitions: beside it."""


def folder():
    """Where the definitions of KubeRay 1.7.0 are, or None; 2 MB of others' code that the repository does not hold."""
    named = os.environ.get("RAYFEED_CRDS")
    return Path(named) if named else BESIDE if BESIDE.is_dir() else None


def validators(directory):
    """A validator for each (apiVersion, kind) that the definitions in a folder define."""
    found = {}
    for path in sorted(directory.glob("*.yaml")):
        definition = yaml.load(path.read_text(), LOADER)  # noqa: S506 - a safe loader, in C
        for version in definition["spec"]["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}  # the API server checks it by itself
            key = f"{definition['spec']['group']}/{version['name']}", definition["spec"]["names"]["kind"]
            found[key] = jsonschema.Draft202012Validator(schema)
    return found


def with_scale(directory):
    """The kinds, of those that the definitions in a folder define, that say how many pods they want."""
    found = []
    for path in sorted(directory.glob("*.yaml")):
        definition = yaml.load(path.read_text(), LOADER)  # noqa: S506 - as above
        subresources = [version.get("subresources", {}) for version in definition["spec"]["versions"]]
        found += [definition["spec"]["names"]["kind"]] if any("scale" in parts for parts in subresources) else []
    return found


def strict(node):
    """A structural schema as JSON Schema, in which a field it does not know is an error instead of dropped."""
    if isinstance(node, list):
        return [strict(part) for part in node]
    if not isinstance(node, dict):
        return node
    schema = {
        key: {name: strict(part) for name, part in value.items()}
        if key == "properties"
        else value
        if key in ("enum", "required", "default")
        else strict(value)
        for key, value in node.items()
    }
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
        schema.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
    if schema.pop("nullable", False):
        schema["type"] = [schema["type"], "null"]
    known = schema.get("properties", {})
    if "required" in schema:  # defaults are filled in before it is asked what is required
        schema["required"] = [name for name in schema["required"] if "default" not in known.get(name, {})]
    if known and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema["additionalProperties"] = False
    return schema


def errors(validator, resource):
    """One line for each error of a resource: where, and what."""
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(resource)]
