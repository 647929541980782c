"""Whether the trainer says that its backend finds no GPU; `tests/nodes` shows that this reaches the caller."""

import importlib.util
import warnings

import keras
import pytest

from rayfeed.trainer import devices
from tests.conftest import assert_runs

ASK = """
import keras
from rayfeed.trainer.devices import finds_gpu
print(keras.backend.backend(), finds_gpu())
"""


def test_without_a_claim_nothing_is_looked_for(monkeypatch):
    monkeypatch.setattr(devices, "finds_gpu", lambda: pytest.fail("it was looked for"))
    devices.warn_without_gpu(0.0, "node 10.0.0.4, pid 8")


def test_a_gpu_that_is_there_is_not_worth_a_word(monkeypatch):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        devices.warn_without_gpu(1.0, "node 10.0.0.4, pid 8")


@pytest.mark.parametrize(
    ("backend", "way_out"),
    [
        ("tensorflow", "pip install 'tensorflow[and-cuda]' there"),
        ("jax", "pip install 'jax[cuda12]' there"),
        ("torch", "install PyTorch's build for CUDA there"),
        ("numpy", "choose a backend that can use one"),
    ],
)
def test_each_backend_has_a_way_out_of_its_own(monkeypatch, backend, way_out):
    monkeypatch.setattr(devices, "finds_gpu", lambda: False)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    with pytest.warns(UserWarning, match="finds none there") as told:
        devices.warn_without_gpu(0.5, "node 10.0.0.4, pid 8")
    text = str(told[0].message)
    assert text.startswith(f"rayfeed: the trainer (node 10.0.0.4, pid 8) claims 0.5 GPU, and Keras' {backend} backend")
    assert way_out in text


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_on_a_machine_without_a_gpu_no_backend_finds_one_or_fails(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: `make backends` does so")
    output = assert_runs(ASK, KERAS_BACKEND=backend, CUDA_VISIBLE_DEVICES="")
    assert output.splitlines()[-1] == f"{backend} False"
