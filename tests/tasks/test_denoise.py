"""What the denoising task makes of its config."""

from types import SimpleNamespace

import pytest

from fooddit.config import ConfigError
from fooddit.tasks import denoise


def test_a_run_without_a_tokenizer_is_nothing_to_start_from(monkeypatch):
    monkeypatch.setattr(denoise, "source_metadata", lambda _: {"task": {}})
    with pytest.raises(ConfigError, match="config.init_from: runs/reader is no run of the task 'denoise'"):
        denoise._tokenizer(SimpleNamespace(init_from="runs/reader"), None, None)
