"""A run as a JobSet on Google Kubernetes Engine: TPU slices, or GPU nodes.

Who restarts what: a pod never (restartPolicy), a Job never (backoffLimit 0): the first pod that fails ends its Job, and
the JobSet then starts all pods of all Jobs again, up to max_restarts. Exit codes 1 to 41 fail the Job for a reason of
their own (PodFailurePolicy), on which the JobSet fails for good. A pod that was evicted, preempted or drained is never
taken for one of these, whatever its code.

Sources: the JobSet API (jobset.x-k8s.io/v1alpha2), Kubernetes' "Pod failure policy", GKE's "Deploy TPU Multislices".
"""

from typing import Any

import yaml

from launch.accelerators import GPUS, TPUS
from launch.spec import LaunchSpec, SpecError, arguments, check, check_cloud, environment

_CONTAINER = "train"
# Of the process that JAX's coordination service runs in, where JAX does not choose one itself.
_PORT = 8476


def render(spec: LaunchSpec) -> str:
    """The JobSet as YAML. SpecError for what GKE cannot run."""
    return yaml.safe_dump(jobset(spec), sort_keys=False, allow_unicode=True, width=10**6)


def apply_commands(spec: LaunchSpec, path: str) -> list[list[str]]:
    """The commands that hand the rendered file at `path` over."""
    return [["kubectl", "apply", "-f", path]]


def follow_up(spec: LaunchSpec) -> list[list[str]]:
    """How the run is then looked at, and ended."""
    at = [f"--namespace={spec.namespace}"]
    pods = f"jobset.sigs.k8s.io/jobset-name={spec.name},batch.kubernetes.io/job-completion-index=0"
    return [
        ["kubectl", "get", "jobset", spec.name, *at],
        ["kubectl", "logs", f"--selector={pods}", "--follow", "--prefix", *at],
        ["kubectl", "delete", "jobset", spec.name, *at],
    ]


def summary(spec: LaunchSpec) -> str:
    """In one line, what the cluster must have for it."""
    hosts, machine = spec.hardware.hosts, spec.hardware.machine
    if spec.hardware.is_tpu:
        return f"{spec.slices} node pool(s) of {hosts} {machine}, TPU topology {spec.hardware.shape}"
    return f"{spec.slices} node(s) {machine}"


def jobset(spec: LaunchSpec) -> dict[str, Any]:
    """The JobSet as `kubectl` would read it. SpecError for what GKE cannot run."""
    check(spec, "gke", needs=("image",), kinds=(*TPUS, *GPUS))
    check_cloud(spec, "gke")
    if spec.hardware.is_tpu and spec.slices > 1 and spec.hardware.hosts == 1:
        raise SpecError(
            f"topology: found {spec.topology!r} with {spec.slices} slices, but GKE joins only slices of two hosts "
            "or more; give a bigger slice"
        )
    # Nodes of GPUs are one Job's pods: what tells them apart is then one index, which JAX wants as well.
    name, jobs, pods = ("slice", spec.slices, spec.hardware.hosts) if spec.hardware.is_tpu else ("node", 1, spec.slices)
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": _metadata(spec, exclusive=spec.hardware.is_tpu and pods > 1),
        "spec": {
            # Process 0 is found by the name of its pod, before it is ready.
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {
                "maxRestarts": spec.max_restarts,
                # The old coordinator must be gone before a new process looks for one.
                "restartStrategy": "BlockingRecreate",
                "rules": [
                    {"name": "mendable", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]},
                ],
            },
            "replicatedJobs": [{"name": name, "replicas": jobs, "template": {"spec": _job(spec, pods)}}],
        },
    }


def _metadata(spec: LaunchSpec, exclusive: bool) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": spec.name, "namespace": spec.namespace}
    if spec.queue:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": spec.queue}
    if exclusive:
        # A node pool is a slice: the pods of one Job on one of them, and no other's.
        metadata["annotations"] = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
    return metadata


def _job(spec: LaunchSpec, pods: int) -> dict[str, Any]:
    from launch.exit_codes import MENDABLE

    disrupted = {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    codes = {"containerName": _CONTAINER, "operator": "In", "values": list(MENDABLE)}
    return {
        "parallelism": pods,
        "completions": pods,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        # The first rule that fits is taken.
        "podFailurePolicy": {"rules": [disrupted, {"action": "FailJob", "onExitCodes": codes}]},
        "template": {
            # The autoscaler may not move a pod to save a node.
            "metadata": {"annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}},
            "spec": _pod(spec, pods),
        },
    }


def _pod(spec: LaunchSpec, pods: int) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": spec.grace_seconds,
        "nodeSelector": _node_selector(spec),
        "tolerations": _tolerations(spec),
    }
    if spec.service_account:
        pod["serviceAccountName"] = spec.service_account
    if spec.priority_class:
        pod["priorityClassName"] = spec.priority_class
    if spec.host_network:
        pod |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    pod["containers"] = [_container(spec, pods)]
    if not spec.hardware.is_tpu:
        # NCCL's buffers: a container has 64 MiB otherwise.
        pod["volumes"] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    return pod


def _container(spec: LaunchSpec, pods: int) -> dict[str, Any]:
    is_tpu = spec.hardware.is_tpu
    container: dict[str, Any] = {
        "name": _CONTAINER,
        "image": spec.image,
        # The image's entrypoint is main.py, under an init that hands signals on.
        "args": [*map(_literal, arguments(spec)), "--distributed=auto" if is_tpu else _by_hand(spec, pods)],
        "env": [{"name": name, "value": _literal(value)} for name, value in environment(spec).items()],
        "resources": {"limits": {"google.com/tpu" if is_tpu else "nvidia.com/gpu": spec.hardware.devices}},
    }
    if is_tpu:
        # A TPU's device files belong to root; the image's own user is another.
        container["securityContext"] = {"runAsUser": 0}
    else:
        container["volumeMounts"] = [{"name": "shm", "mountPath": "/dev/shm"}]
    return container


def _by_hand(spec: LaunchSpec, pods: int) -> str:
    """Where pod 0 is, how many there are, and which one this is: Kubernetes puts the index in."""
    return f"--distributed={spec.name}-node-0-0.{spec.name}:{_PORT},{pods},$(JOB_COMPLETION_INDEX)"


def _literal(text: str) -> str:
    """Text that Kubernetes leaves as it is: it would take $(NAME) for a variable, and $$ for one dollar."""
    return text.replace("$", "$$")


def _node_selector(spec: LaunchSpec) -> dict[str, str]:
    kind = spec.hardware.kind
    if spec.hardware.is_tpu:
        selector = {
            "cloud.google.com/gke-tpu-accelerator": TPUS[kind].gke_label,
            "cloud.google.com/gke-tpu-topology": spec.hardware.shape,
        }
    else:
        selector = {"cloud.google.com/gke-accelerator": GPUS[kind].gke_label}
    if spec.capacity == "spot":
        selector["cloud.google.com/gke-spot"] = "true"
    elif spec.capacity != "on-demand":
        selector["cloud.google.com/reservation-name"] = spec.capacity
    return selector


def _tolerations(spec: LaunchSpec) -> list[dict[str, str]]:
    device = "google.com/tpu" if spec.hardware.is_tpu else "nvidia.com/gpu"
    tolerations = [{"key": device, "operator": "Exists", "effect": "NoSchedule"}]
    if spec.capacity == "spot":
        spot = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
        tolerations.append(spot)
    return tolerations
