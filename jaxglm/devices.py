"""Where arrays are computed."""

from __future__ import annotations

from typing import Any

import jax

from jaxglm.errors import listed


def default_device() -> Any:
    """Where JAX computes unless told otherwise."""
    chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
    return chosen if isinstance(chosen, jax.Device) else jax.devices(chosen)[0]


def named_device(device: Any) -> Any:
    """A JAX device from a device or the name of a platform. Raises ValueError where there is none."""
    if device is None or not isinstance(device, str):
        return device
    try:
        return jax.devices(device)[0]
    except RuntimeError:
        known = listed(sorted({d.platform for d in jax.devices()}))
        raise ValueError(f"JAX finds no device {device!r} here; it has {known}. See README, section GPU") from None
