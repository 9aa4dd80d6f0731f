"""Figures as a person reads them."""

from fooddit.aot.figures import Figures


def report(found: Figures) -> str:
    """Lines of text, the verdict first."""
    verdict = "fits" if found.fits else "DOES NOT FIT"
    lines = [f"{found.what} of {found.config} on {found.topology} ({found.devices} devices): {verdict}"]
    row = lambda name, text: lines.append(f"  {name:22} {text}")  # noqa: E731
    if found.peak_hbm_bytes is not None:
        row("HBM a device", f"{_bytes(found.peak_hbm_bytes)} of {_bytes(found.capacity_bytes)}")
        row("  headroom", _bytes(found.headroom_bytes))
    for name, value in (
        ("arguments", found.argument_bytes),
        ("temporaries", found.temporary_bytes),
        ("code", found.code_bytes),
    ):
        if value is not None:
            row(f"  {name}", _bytes(value))
    if found.biggest:
        lines += ["  biggest tensors:", *(f"    {each}" for each in found.biggest)]
        lines.append(
            "  try a smaller batch (or train.accumulate), model.remat=full, or a larger mesh.fsdp; --sweep tries them"
        )
    if found.model_flops:
        row("model FLOPs", f"{found.model_flops:.3e} (executed {found.executed_flops / found.model_flops:.2f} of it)")
    if found.hbm_bytes is not None:
        row("HBM traffic a device", _bytes(found.hbm_bytes))
        for kind, sent in sorted(found.collective_bytes.items()):
            row(f"  sent: {kind}", _bytes(sent))
    for name, kernel in (found.kernels or {}).items():
        row("kernel", f"{name}: {kernel['calls']} x {kernel['cycles']:,} cycles")
    if found.roofline_seconds is not None:
        parts = (found.compute_seconds, found.hbm_seconds, found.interconnect_seconds)
        row("compute, HBM, links", ", ".join(f"{1000 * seconds:.2f} ms" for seconds in parts))
        row("roofline", f"{1000 * found.roofline_seconds:.2f} ms, bound by {found.bound}")
        row("MFU bound", f"{found.mfu_bound:.1%}")
        row("images/s/chip", f"{found.images_per_second_per_chip:.1f}")
    if found.compile_seconds is not None:
        row("compiled in", f"{found.compile_seconds} s")
    return "\n".join(lines)


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if abs(count) < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:,.2f} GB"
