"""Several devices of one host: `shard_map` over the groups, each shard on its own. The devices are virtual, in a process
that is told to have four."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("on_four_devices.py")


@pytest.fixture(scope="module")
def said(environment):
    flags = environment.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], env={**environment, "XLA_FLAGS": flags}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "line",
    [
        "the fits are the same",
        "the shards exchange nothing",
        "a separated group stops its shard only",
        "arrays are fitted where they lie",
        "threads stay on the device",
    ],
)
def test_on_four_devices(said, line):
    assert line in said
