"""An H100 SXM as XLA's GPU compiler wants it described: NVIDIA's figures (H100 white paper, CUDA programming guide)."""

_DEVICE = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "threads_per_core_limit": 2048,
    "thread_dim_limit_x": 1024,
    "thread_dim_limit_y": 1024,
    "thread_dim_limit_z": 64,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 2**16 - 1,
    "block_dim_limit_z": 2**16 - 1,
    "shared_memory_per_block": 48 << 10,
    "shared_memory_per_block_optin": 227 << 10,
    "shared_memory_per_core": 228 << 10,
    "registers_per_core_limit": 1 << 16,
    "registers_per_block_limit": 1 << 16,
    "core_count": 132,
    "fpus_per_core": 128,
    "clock_rate_ghz": 1.98,
    "l2_cache_size": 50 << 20,
    "memory_bandwidth": 3_350_000_000_000,
    "device_memory_size": 80_000_000_000,
    "device_address_bits": 64,
    "device_vendor": '"NVIDIA Corporation"',
    "name": '"NVIDIA H100 80GB HBM3"',
    "driver_version": '"13.0.0"',
    "runtime_version": '"13.0.0"',
    "compile_time_toolkit_version": '"13.0.0"',
}


def h100_target() -> str:
    """A GpuTargetConfigProto in text form."""
    fields = " ".join(f"{name}: {value}" for name, value in _DEVICE.items())
    return (
        f"gpu_device_info {{ {fields} "
        "cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES } } "
        'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } device_description_str: "NVIDIA H100 80GB HBM3"'
    )
