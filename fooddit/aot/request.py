"""What is asked for, {topology, slices, generate, cached, attention, config_flags}, and the traced program of it."""

from fooddit.config import ConfigError


def program(request: dict):
    """(the traced program, its topology) of a request."""
    from fooddit.config_file import read_experiment

    # Both before JAX makes a backend of its own.
    experiment = read_experiment(request["config_flags"])
    topology = named_topology(request, experiment)

    from fooddit.aot.program import sampler, train_step, with_attention
    from fooddit.kernels.dispatch import Unsupported

    if request["attention"]:
        experiment = with_attention(experiment, request["attention"])
    try:
        if request["generate"]:
            return sampler(experiment, topology, request["generate"]), topology
        return train_step(experiment, topology, cached=request["cached"]), topology
    except Unsupported as reason:
        raise ConfigError(str(reason)) from reason


def named_topology(request: dict, experiment):
    """What the command asks for, else what the config is meant for. ConfigError if neither names one."""
    from fooddit.aot.topology import EXAMPLES, absent

    name = request["topology"] or experiment.topology
    if not name:
        raise ConfigError(f"--topology is missing, and config.topology is empty; give one of {EXAMPLES}")
    return absent(name, request["slices"])
