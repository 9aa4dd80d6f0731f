"""fooddit: train and use image models of dishes, from photos to a released model."""

__all__ = ["Pipeline"]
__version__ = "0.1.0"


def __getattr__(name: str):
    # JAX is imported when a pipeline is asked for, not by `import fooddit` or the command line's help.
    if name == "Pipeline":
        from fooddit.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module 'fooddit' has no attribute {name!r}")
