"""JobSets: by the API's own schema, and by what the policies in them would do."""

import copy
import os
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from launch import gke, run
from launch.exit_codes import restarts
from launch.spec import LaunchSpec, SpecError
from tests.launch.cases import CASES, GOLDEN
from tests.launch.jobset_schema import SCHEMA, crd_schema

FILES = [file for file in CASES if file.startswith("gke")]
# podFailurePolicy is stable since the first; the other is the newest that is known here.
VERSIONS = ["1.31", kubernetes_validate.latest_version()]


@pytest.fixture(scope="module")
def schema():
    """The CRD's, where FOODDIT_JOBSET_CRD says where it is; else our own."""
    path = os.environ.get("FOODDIT_JOBSET_CRD")
    return crd_schema(Path(path)) if path else SCHEMA


def spec(**changes) -> LaunchSpec:
    base = {"name": "run", "config": "configs/stage1.py", "workdir": "gs://b/run", "image": "example.com/fooddit:1"}
    return LaunchSpec(**base | {"topology": "v6e:16x16"} | changes)


def job_of(jobset: dict) -> dict:
    return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]


def pod_of(jobset: dict) -> dict:
    return job_of(jobset)["template"]["spec"]


def loaded(file: str) -> dict:
    return yaml.safe_load((GOLDEN / file).read_text(encoding="utf-8"))


def validate_job(jobset: dict, version: str) -> None:
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": job_of(jobset)}
    kubernetes_validate.validate(job, version, strict=True)


@pytest.mark.parametrize("file", FILES)
def test_the_api_takes_it(file, schema):
    jobset = loaded(file)
    jsonschema.validate(jobset, schema)
    jsonschema.validate(jobset, SCHEMA)
    for version in VERSIONS:
        validate_job(jobset, version)


@pytest.mark.parametrize(
    "where, key",
    [
        ((), "spec"),
        (("spec",), "failurePolicy"),
        (("spec", "failurePolicy"), "maxRestarts"),
        (("spec", "failurePolicy", "rules", 0), "onJobFailureReasons"),
        (("spec", "network"), "enableDNSHostnames"),
        (("spec", "replicatedJobs", 0), "replicas"),
        (("spec", "replicatedJobs", 0, "template", "spec"), "podFailurePolicy"),
        (("spec", "replicatedJobs", 0, "template", "spec", "podFailurePolicy", "rules", 1), "onExitCodes"),
    ],
)
def test_a_misspelt_key_is_found(where, key, schema):
    jobset = loaded("gke-v6e.yaml")
    place = jobset
    for part in where:
        place = place[part]
    place[key.replace("e", "ee", 1)] = place.pop(key)
    for each in (schema, SCHEMA):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(jobset, each)


def test_a_misspelt_key_of_a_pod_is_found():
    jobset = loaded("gke-v6e.yaml")
    pod = pod_of(jobset)
    pod["terminationGracePeriodSecond"] = pod.pop("terminationGracePeriodSeconds")
    with pytest.raises(kubernetes_validate.ValidationError):
        validate_job(jobset, VERSIONS[0])


def outcome(job: dict, code: int, disrupted: bool) -> str:
    """What the Job controller does about a pod that failed: the first rule that fits, else the pod is counted."""
    for rule in job["podFailurePolicy"]["rules"]:
        conditions = [condition["type"] for condition in rule.get("onPodConditions", ())]
        codes = rule.get("onExitCodes", {"values": ()})["values"]
        if (disrupted and "DisruptionTarget" in conditions) or code in codes:
            return rule["action"]
    return "Count"


@pytest.mark.parametrize("code", [1, 2, 3, 41, 42, 126, 127, 134, 137, 139, 143])
def test_which_exit_codes_end_a_run(code):
    jobset = gke.jobset(spec())
    job, policy = job_of(jobset), jobset["spec"]["failurePolicy"]
    assert job["backoffLimit"] == 0 and pod_of(jobset)["restartPolicy"] == "Never"
    assert outcome(job, code, disrupted=False) == ("Count" if restarts(code) else "FailJob")
    # An eviction may catch a process at a moment in which it cannot save and says so by its code.
    assert outcome(job, code, disrupted=True) == "Count"
    # A Job that failed by its count fails for another reason, and JobSet restarts on all but this one.
    assert policy["rules"] == [
        {"name": "mendable", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]


@pytest.mark.parametrize(
    "changes, jobs, pods, limit",
    [
        ({}, 1, 64, {"google.com/tpu": 4}),
        ({"topology": "v5p:8x8x8", "slices": 2}, 2, 128, {"google.com/tpu": 4}),
        ({"topology": "tpu7x:4x4x4"}, 1, 16, {"google.com/tpu": 4}),
        ({"topology": "v5e:1x1"}, 1, 1, {"google.com/tpu": 1}),
        ({"topology": "h100:8", "slices": 2}, 1, 2, {"nvidia.com/gpu": 8}),
        ({"topology": "h100:4"}, 1, 1, {"nvidia.com/gpu": 4}),
    ],
)
def test_how_many_pods(changes, jobs, pods, limit):
    jobset = gke.jobset(spec(**changes))
    job = job_of(jobset)
    assert jobset["spec"]["replicatedJobs"][0]["replicas"] == jobs
    assert job["parallelism"] == job["completions"] == pods and job["completionMode"] == "Indexed"
    assert pod_of(jobset)["containers"][0]["resources"] == {"limits": limit}
    validate_job(jobset, VERSIONS[0])


def test_gpus_are_told_where_process_0_is():
    jobset = gke.jobset(spec(topology="h100:8", slices=2))
    container = pod_of(jobset)["containers"][0]
    # The pod's name, in the headless service that JobSet makes under its own.
    assert container["args"][-1] == "--distributed=run-node-0-0.run:8476,2,$(JOB_COMPLETION_INDEX)"
    assert jobset["spec"]["network"] == {"enableDNSHostnames": True, "publishNotReadyAddresses": True}
    assert "annotations" not in jobset["metadata"]
    assert pod_of(jobset)["volumes"] == [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    assert container["volumeMounts"] == [{"name": "shm", "mountPath": "/dev/shm"}]


def test_kubernetes_puts_nothing_into_what_was_given():
    jobset = gke.jobset(spec(config_flags=("--config.x=$(HOME) 你好 $$",), env=(("A", "$(B)"),)))
    container = pod_of(jobset)["containers"][0]
    assert "--config.x=$$(HOME) 你好 $$$$" in container["args"]
    assert {"name": "A", "value": "$$(B)"} in container["env"]
    text = gke.render(spec(config_flags=("--config.x=$(HOME) 你好 $$",)))
    assert "你好" in text and yaml.safe_load(text)["kind"] == "JobSet"


def test_env_wins_over_the_cache_beside_the_run():
    names = [("JAX_COMPILATION_CACHE_DIR", "gs://b/shared")]
    env = pod_of(gke.jobset(spec(env=tuple(names))))["containers"][0]["env"]
    assert env == [{"name": "JAX_COMPILATION_CACHE_DIR", "value": "gs://b/shared"}]
    assert pod_of(gke.jobset(spec()))["containers"][0]["env"][0]["value"] == "gs://b/run/compiled"


@pytest.mark.parametrize("topology", ["v5p:8x8x8", "h100:8"])
def test_names_are_as_long_as_kubernetes_takes(topology):
    jobset = gke.jobset(spec(name="a" * 40, topology=topology, slices=999))
    replicated, job = jobset["spec"]["replicatedJobs"][0], job_of(jobset)
    last = f"{'a' * 40}-{replicated['name']}-{replicated['replicas'] - 1}-{job['completions'] - 1}-abcde"
    assert len(last) <= 63


def test_slices_of_one_host_are_not_joined():
    with pytest.raises(SpecError, match="GKE joins only slices of two hosts or more"):
        gke.jobset(spec(topology="v6e:2x2", slices=2))
    assert "annotations" not in gke.jobset(spec(topology="v6e:2x2"))["metadata"]


def test_rendering_is_pure():
    given = spec(env=(("A", "b"),))
    before = copy.deepcopy(given)
    assert gke.render(given) == gke.render(given) and given == before


def test_what_the_cluster_has_to_have(capsys):
    assert run.main(CASES["gke-v5p.yaml"]) == 0
    assert "2 node pool(s) of 128 ct5p-hightpu-4t, TPU topology 8x8x8" in capsys.readouterr().err
