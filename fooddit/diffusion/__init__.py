"""The algebra of diffusion, pure functions: flow path, times, losses, samplers, guidance."""

from fooddit.diffusion.guidance import guide, guide_twice
from fooddit.diffusion.objective import FlowLoss, ObjectiveConfig, flow_loss, loss_by_time, to_velocity
from fooddit.diffusion.path import (
    expand_time,
    interpolate,
    noise_from_velocity,
    velocity_from_noise,
    velocity_from_x0,
    velocity_target,
    x0_from_velocity,
)
from fooddit.diffusion.samplers import STEPPERS, Stepper, sample
from fooddit.diffusion.timesteps import (
    TimestepConfig,
    example_keys,
    example_noise,
    resolution_shift,
    sample_times,
    sampling_times,
    shift_times,
)

__all__ = [
    "STEPPERS",
    "FlowLoss",
    "ObjectiveConfig",
    "Stepper",
    "TimestepConfig",
    "example_keys",
    "example_noise",
    "expand_time",
    "flow_loss",
    "guide",
    "guide_twice",
    "interpolate",
    "loss_by_time",
    "noise_from_velocity",
    "resolution_shift",
    "sample",
    "sample_times",
    "sampling_times",
    "shift_times",
    "to_velocity",
    "velocity_from_noise",
    "velocity_from_x0",
    "velocity_target",
    "x0_from_velocity",
]
