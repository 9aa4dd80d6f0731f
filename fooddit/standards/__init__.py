"""What a good picture is, written down: criteria, levels and anomalies, in Chinese and English."""

from fooddit.standards.standard import (
    LANGUAGES,
    SHIPPED,
    Anomaly,
    Criterion,
    Standard,
    StandardError,
    Sub,
    as_values,
    from_values,
    load_standard,
)

__all__ = [
    "LANGUAGES",
    "SHIPPED",
    "Anomaly",
    "Criterion",
    "Standard",
    "StandardError",
    "Sub",
    "as_values",
    "from_values",
    "load_standard",
]
