"""What `test_devices` runs: says in lines what is true of fits spread over four devices."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxglm import Status, families, irls
from jaxglm.threads import in_threads

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
DEVICES = 4
assert len(jax.devices()) == DEVICES

rng = np.random.default_rng(1)
g, n = 64, 40
X = np.concatenate([np.ones((g, n, 1)), rng.normal(size=(g, n, 2))], axis=2)
y = (rng.random((g, n)) < 1.0 / (1.0 + np.exp(-0.5 * X[..., 1]))) * 1.0
y[3], X[40, :, 2] = X[3, :, 1] > 0, X[40, :, 1]  # one separated, in the first shard, and one with a column twice, in the third

mesh = jax.make_mesh((DEVICES,), ("fits",), axis_types=(jax.sharding.AxisType.Auto,))
spec = jax.sharding.PartitionSpec("fits")


def share(X, y):
    return irls.solve_many(X, y, families.Binomial())


spread = jax.jit(jax.shard_map(share, mesh=mesh, in_specs=(spec, spec), out_specs=spec, check_vma=False))
place = jax.sharding.NamedSharding(mesh, spec)
there = jax.device_put(jnp.asarray(X), place), jax.device_put(jnp.asarray(y), place)
program = spread.lower(*there).compile()
found, alone = program(*there), jax.jit(share)(X, y)

assert len(found.coefficients.sharding.device_set) == DEVICES
assert found.status[3] == Status.SEPARATED
assert np.asarray(found.rank)[40] == 2
np.testing.assert_array_equal(found.status, alone.status)
for name in ("coefficients", "covariance", "deviance"):
    np.testing.assert_allclose(getattr(found, name), getattr(alone, name), rtol=1e-8, atol=1e-10)
print("the fits are the same")

text = program.as_text()
assert not [word for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute") if word in text]
print("the shards exchange nothing")

# Each shard takes the iterations that it takes by itself.
size = g // DEVICES
for k in range(DEVICES):
    part = slice(k * size, (k + 1) * size)
    own = jax.jit(share)(X[part], y[part])
    np.testing.assert_array_equal(np.asarray(found.n_iterations)[part], own.n_iterations)
    np.testing.assert_allclose(np.asarray(found.coefficients)[part], own.coefficients, rtol=1e-11, atol=1e-14)
print("a separated group stops its shard only")

# What is called with arrays of another device is solved there, and what is spread over devices stays so.
second = jax.devices()[1]
moved = jax.device_put((jnp.asarray(X), jnp.asarray(y)), second)
many = irls.solve_many(*moved, families.Binomial())
one = irls.solve(moved[0][0], moved[1][0], families.Binomial())
assert many.coefficients.devices() == one.coefficients.devices() == {second}
np.testing.assert_allclose(one.coefficients, many.coefficients[0], rtol=1e-9)
kept = irls.solve_many(*there, families.Binomial())
np.testing.assert_array_equal(kept.status, found.status)
assert len(kept.coefficients.sharding.device_set) == DEVICES, kept.coefficients.sharding
print("arrays are fitted where they lie")

# Threads compute where their caller does.
with jax.default_device(jax.devices()[2]):
    places = list(in_threads(lambda _: jnp.zeros(1).devices().pop().id, [0, 1, 2, 3]))
assert places == [2] * 4, places
print("threads stay on the device")
