"""The fields of a JobSet that launch/gke.py sets, as a JSON schema; and the schema of a CRD, made strict.

The small one stands in where the CRD is not at hand. What is within a Job is checked by kubernetes-validate besides.
Source: the JobSet API, jobset.x-k8s.io/v1alpha2.
"""

import copy
from pathlib import Path
from typing import Any

import yaml

_TEXT, _FLAG, _COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    properties = required | optional
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


_RULE = _object(
    {
        "name": {"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
        "action": {"enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]},
        "onJobFailureReasons": _list({"enum": ["BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy"]}),
    }
)
_POD_RULE = _object(
    {"action": {"enum": ["FailJob", "Ignore", "Count"]}},
    onExitCodes=_object({"containerName": _TEXT, "operator": {"enum": ["In", "NotIn"]}, "values": _list(_COUNT)}),
    onPodConditions=_list(_object({"type": _TEXT, "status": _TEXT})),
)
_JOB = _object(
    {
        "parallelism": _COUNT,
        "completions": _COUNT,
        "completionMode": {"enum": ["Indexed"]},
        "backoffLimit": _COUNT,
        "podFailurePolicy": _object({"rules": _list(_POD_RULE)}),
        "template": _object({"metadata": _object({"annotations": _TEXTS}), "spec": {"type": "object"}}),
    }
)
SCHEMA = _object(
    {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": _object({"name": _TEXT, "namespace": _TEXT}, labels=_TEXTS, annotations=_TEXTS),
        "spec": _object(
            {
                "network": _object({"enableDNSHostnames": _FLAG, "publishNotReadyAddresses": _FLAG}),
                "failurePolicy": _object(
                    {
                        "maxRestarts": _COUNT,
                        "restartStrategy": {"enum": ["Recreate", "BlockingRecreate"]},
                        "rules": _list(_RULE),
                    }
                ),
                "replicatedJobs": _list(
                    _object({"name": _TEXT, "replicas": _COUNT, "template": _object({"spec": _JOB})})
                ),
            }
        ),
    }
)


def crd_schema(path: Path) -> dict[str, Any]:
    """The schema of version v1alpha2 in a CustomResourceDefinition: with errors for keys that it does not know."""
    crd = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    versions = {version["name"]: version["schema"]["openAPIV3Schema"] for version in crd["spec"]["versions"]}
    return strict(versions["v1alpha2"])


def strict(schema: Any) -> Any:
    """Where an object's properties are listed, all others become errors. The API server would drop them in silence."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return copy.deepcopy(schema)
    made = {key: strict(value) for key, value in schema.items()}
    listed = isinstance(made.get("properties"), dict) and made.get("type") == "object"
    if listed and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made
