"""Ray's authentication and encryption are what the caller set, for producers and trainers alike (contract E)."""

import secrets

import pytest
import ray
import ray.util
import trustme

from tests.conftest import assert_runs

TRAINS = """
import os

import keras
import ray
import rayfeed
from tests.sources import Numbered

before = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
history = rayfeed.fit_generator(
    model, Numbered(5), workers=2, use_multiprocessing=True, validation_data=Numbered(3), verbose=0, epochs=2
)
assert len(history.history["val_loss"]) == 2
assert before.items() <= os.environ.items()
print(ray.get_runtime_context().gcs_address)
"""

REFUSED_WITHOUT = """
import subprocess
import sys

def joins(**changed):
    environment = {name: value for name, value in {**os.environ, **changed}.items() if value is not None}
    joining = "import ray; ray.init(log_to_driver=False); print('joined')"
    process = subprocess.run(
        [sys.executable, "-c", joining], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    return process.returncode == 0 and "joined" in process.stdout

address = ray.get_runtime_context().gcs_address
assert joins(RAY_ADDRESS=address)
assert not joins(RAY_ADDRESS=address, RAY_AUTH_TOKEN="0" * 64)
"""

ENCRYPTED = """
import socket
import ssl

host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
context = ssl.create_default_context(cafile=os.environ["RAY_TLS_CA_CERT"])
context.load_cert_chain(os.environ["RAY_TLS_SERVER_CERT"], os.environ["RAY_TLS_SERVER_KEY"])
with socket.create_connection((host, int(port)), 10) as plain:
    with context.wrap_socket(plain, server_hostname=host) as encrypted:
        assert encrypted.version() == "TLSv1.3"
"""


@pytest.fixture
def tls(tmp_path):
    """Ray's settings for a certificate of this machine, of an authority of its own."""
    authority = trustme.CA()
    certificate = authority.issue_cert(ray.util.get_node_ip_address(), "127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    chain = b"".join(link.bytes() for link in certificate.cert_chain_pems)
    (tmp_path / "certificate.pem").write_bytes(chain)
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(tmp_path / "certificate.pem"),
        "RAY_TLS_SERVER_KEY": str(tmp_path / "key.pem"),
        "RAY_TLS_CA_CERT": str(tmp_path / "authority.pem"),
    }


def test_without_authentication():
    joined = ray.get_runtime_context().gcs_address
    own = assert_runs(TRAINS, RAY_ADDRESS="local", RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN=None)
    assert own.split() != [joined]


def test_with_a_token_of_the_callers_over_tls(tls):
    token = secrets.token_hex(32)
    code = TRAINS + REFUSED_WITHOUT + ENCRYPTED
    assert_runs(code, RAY_ADDRESS="local", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token, **tls, seconds=150)
