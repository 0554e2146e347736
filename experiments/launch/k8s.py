"""Prints a Kubernetes manifest of a run on several pods, from one file of values.

  python experiments/launch/k8s.py job VALUES.yaml | kubectl apply -f -
  python experiments/launch/k8s.py jobset VALUES.yaml | kubectl apply -f -

`job` is an Indexed Job with a headless Service, which any cluster has; `jobset` needs the JobSet
controller, and starts all pods again together when one fails. experiments/launch/k8s.yaml is an
example of values.
"""

import argparse
import pathlib
import re
import sys
from typing import Any

import yaml

PORT = 8476
# Exit codes of afd-train (docs/faults.md): a setting cannot work; stopped, or lost another process.
WRONG, AGAIN = [2], [75, 130]

_KINDS: dict[str, Any] = {
    "name": str,
    "image": str,
    "processes": int,
    "devices": int,
    "device": str,
    "cpu": (int, float, str),
    "memory": str,
    "node_selector": dict,
    "claim": str,
    "config": str,
    "workdir": str,
    "settings": list,
    "restarts": int,
    "grace_seconds": int,
}


def read_values(path: str | pathlib.Path) -> dict[str, Any]:
    """Reads a file of values.

    Raises:
      ValueError: if one is missing, unknown or of another kind.
    """
    values = yaml.safe_load(pathlib.Path(path).read_text())
    if not isinstance(values, dict) or {*values} != {*_KINDS}:
        differ = {*_KINDS} ^ {*(values if isinstance(values, dict) else ())}
        raise ValueError(f"{path}: missing or unknown: {', '.join(sorted(map(str, differ)))}")
    for name, kind in _KINDS.items():
        if not isinstance(values[name], kind) or isinstance(values[name], bool):
            raise ValueError(f"{path}: {name} = {values[name]!r}: not of the kind in k8s.yaml")
    # Pods are called NAME-workers-0-31 at the longest, and that is a DNS label.
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", values["name"]):
        raise ValueError(f"{path}: name = {values['name']!r}: 1 to 40 of a-z, 0-9 and -")
    for name, least in {"processes": 1, "devices": 0, "restarts": 0, "grace_seconds": 1}.items():
        if values[name] < least:
            raise ValueError(f"{path}: {name} = {values[name]}: must be at least {least}")
    return values


def job(values: dict[str, Any]) -> list[dict[str, Any]]:
    """A headless Service, by which pods find the first one, and an Indexed Job."""
    name = values["name"]
    again = [
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": AGAIN}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"job-name": name},
        },
    }
    own = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
    pods = _pods(values, f"{name}-0.{name}", subdomain=name)
    return [service, {**own, "spec": _job_spec(values, pods, values["restarts"], again)}]


def jobset(values: dict[str, Any]) -> list[dict[str, Any]]:
    """A JobSet, which makes the Service itself and restarts all pods at once."""
    name, again = values["name"], "RestartJobSetAndIgnoreMaxRestarts"
    fails = [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": AGAIN}},
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    spec = _job_spec(values, _pods(values, f"{name}-workers-0-0.{name}"), 0, fails)
    # A setting that cannot work fails as any fault does: it counts among the restarts.
    spec["podFailurePolicy"]["rules"] = fails
    return [
        {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {"name": name},
            "spec": {
                "network": {"enableDNSHostnames": True, "subdomain": name},
                "failurePolicy": {
                    "maxRestarts": values["restarts"],
                    "rules": [
                        {
                            "name": "again",
                            "action": again,
                            "onJobFailureReasons": ["PodFailurePolicy"],
                        }
                    ],
                },
                "replicatedJobs": [{"name": "workers", "replicas": 1, "template": {"spec": spec}}],
            },
        }
    ]


def _job_spec(
    values: dict[str, Any], pods: dict[str, Any], retries: int, again: list[dict[str, Any]]
) -> dict[str, Any]:
    wrong = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": WRONG}}
    return {
        "completionMode": "Indexed",
        "completions": values["processes"],
        "parallelism": values["processes"],
        "backoffLimit": retries,
        "podFailurePolicy": {"rules": [wrong, *again]},
        "template": {"spec": pods},
    }


def _pods(values: dict[str, Any], first: str, subdomain: str | None = None) -> dict[str, Any]:
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    resources: dict[str, Any] = {"cpu": values["cpu"], "memory": values["memory"]}
    if values["devices"]:
        resources[values["device"]] = values["devices"]
    command = ["python", "-m", "afd_jax", f"--config={values['config']}"]
    command += [f"--workdir={values['workdir']}", "--distributed", *values["settings"]]
    container = {
        "name": "train",
        "image": values["image"],
        "command": command,
        "ports": [{"containerPort": PORT}],
        "env": [
            {"name": "JAX_COORDINATOR_ADDRESS", "value": f"{first}:{PORT}"},
            {"name": "JAX_NUM_PROCESSES", "value": str(values["processes"])},
            {"name": "JAX_PROCESS_ID", "valueFrom": {"fieldRef": {"fieldPath": index}}},
        ],
        "resources": {"requests": resources, "limits": resources},
        "volumeMounts": [
            {"name": "afd", "mountPath": "/afd"},
            {"name": "shm", "mountPath": "/dev/shm"},  # NCCL and data workers; 64 MiB by default
        ],
    }
    pods = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": values["grace_seconds"],
        "nodeSelector": values["node_selector"],
        "containers": [container],
        "volumes": [
            {"name": "afd", "persistentVolumeClaim": {"claimName": values["claim"]}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }
    return pods | ({"subdomain": subdomain} if subdomain else {})


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("job", "jobset"))
    parser.add_argument("values", metavar="VALUES.yaml")
    asked = parser.parse_args()
    try:
        manifests = {"job": job, "jobset": jobset}[asked.kind](read_values(asked.values))
    except (OSError, ValueError, yaml.YAMLError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # Without aliases, which not every reader of manifests takes.
    dumper = type("Plain", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    print(yaml.dump_all(manifests, Dumper=dumper, sort_keys=False), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
