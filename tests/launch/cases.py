"""Launches whose rendering is kept in tests/launch/golden, by file: the arguments of launch/run.py."""

from pathlib import Path

GOLDEN = Path(__file__).resolve().parent / "golden"
_STAGE1 = ["--config=configs/stage1.py", "--config.data.source=gs://dishes/菜谱 records"]
_CLOUD = [*_STAGE1, "--workdir=gs://dishes/runs/stage1", "--image=us-docker.pkg.dev/dishes/train/fooddit:1"]
_V5P = ["--topology=v5p:8x8x8", "--slices=2"]
_H100 = ["--topology=h100:8", "--slices=2", "--config.mesh.fsdp=8", "--config.data.batch_size=512"]
_VM = ["--zone=us-east5-a", "--project=dishes"]

CASES = {
    "gke-v6e.yaml": ["gke", *_CLOUD, "--queue=vision", "--service-account=trainer"],
    "gke-v5p.yaml": ["gke", *_CLOUD, *_V5P, "--capacity=spot", "--priority-class=low", "--host-network"],
    "gke-h100.yaml": ["gke", *_CLOUD, *_H100, "--capacity=h100-block", "--env=NCCL_DEBUG=WARN"],
    "tpu-vm-v6e.txt": ["tpu-vm", *_CLOUD, *_VM, "--capacity=spot"],
    "tpu-vm-v5p.txt": ["tpu-vm", *_CLOUD, *_VM, *_V5P, "--capacity=v5p-block"],
    "slurm-h100.sh": ["slurm", *_STAGE1, "--workdir=/shared/runs/stage1", *_H100, "--time-limit=1-00:00:00"],
}
# Of the same three: what a target cannot run, and a word of the error.
REFUSED = {
    "slurm-v6e": (["slurm", *_STAGE1, "--workdir=/shared/run"], "try gke, tpu-vm"),
    "slurm-v5p": (["slurm", *_STAGE1, "--workdir=/shared/run", *_V5P], "try gke, tpu-vm"),
    "tpu-vm-h100": (["tpu-vm", *_CLOUD, *_VM, *_H100], "try gke, slurm"),
    "tpu-vm-tpu7x": (["tpu-vm", *_CLOUD, *_VM, "--topology=tpu7x:4x4x4"], "try gke"),
}
