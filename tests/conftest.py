"""Eight CPU devices for every test, and programs that compile fast: set before anything imports jax."""

import os

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The suite's time is XLA's compile time. Without LLVM's optimisations and MLIR's fusions a step compiles six times
# faster and computes the same; tests/invariants/test_resume.py runs the programs that users get.
FAST_COMPILING = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
)
FLAGS = ("--xla_force_host_platform_device_count=8", *FAST_COMPILING)
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join([*given.split(), *(flag for flag in FLAGS if flag.split("=")[0] not in given)])


# Files whose tests each take long and share little: their tests may run on several workers.
APART = ("test_docs.py",)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """With --dist loadgroup a file's tests stay together, as they share what was made for them, but for those APART,
    which begin first: one that is long and begins last keeps a single worker busy while the others wait."""
    items.sort(key=lambda item: item.path.name not in APART)
    for item in items:
        if item.path.name not in APART:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="the long form of the fault and bad-input tests: make soak")


@pytest.fixture(scope="session")
def soak(request) -> bool:
    """Whether the long form was asked for."""
    return request.config.getoption("--soak")


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory):
    """Processes that tests start share what they compile, and leave nothing in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
        yield


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The workdir of a finished run of configs/stage1.py:tiny whose weights have moved far enough to show."""
    import jax

    from configs.stage1 import get_config
    from fooddit.config import build
    from fooddit.parallel import make_mesh
    from fooddit.tasks.denoise import Denoise, DenoiseExperiment
    from fooddit.training import loop

    config = get_config("tiny")
    config.train.steps, config.optimizer.warmup, config.optimizer.learning_rate = 4, 1, 0.004
    config.evaluation.samples, config.evaluation.nearest = 0, False
    experiment, workdir = build(DenoiseExperiment, config.to_dict()), tmp_path_factory.mktemp("tiny_run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
        loop.train(Denoise(experiment, workdir), experiment, workdir)
    return workdir
