"""Float64 oracle of the algorithm in docs/design.md, section 1, written from that page alone.

Every number carries a bound on how far arithmetic of the backend's precision may be from it, so that the tolerances of
the suite are derived and not chosen: a few units in the last place per step, scaled with the magnitudes that occurred.
Complex tensors are pairs of real numbers in the last dimension.
"""

import numpy as np
import torch

GAUSSIAN_ERROR = 4e-5  # absolute: of the polynomials of docs/design.md
UINT32 = np.uint64(0xFFFFFFFF)


def values(tensor):
    """A float64 copy of the elements in logical order."""
    tensor = tensor.detach().resolve_conj().cpu()
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).double().numpy().copy()


def philox4x32(counter, key):
    """Philox4x32-10: four uint64 arrays of 32-bit words from four such arrays (or ints) and a 64-bit key."""
    c = [np.asarray(word, np.uint64) for word in counter]
    k = [np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [p1 >> np.uint64(32) ^ c[1] ^ k[0], p1 & UINT32, p0 >> np.uint64(32) ^ c[3] ^ k[1], p0 & UINT32]
        k = [(k[0] + np.uint64(0x9E3779B9)) & UINT32, (k[1] + np.uint64(0xBB67AE85)) & UINT32]
    return c


def random_words(positions, *, key, parameter, step):
    """A 32-bit word for each int64 position, as uint64."""
    k = philox4x32((0, 0, parameter, step), key % 2**64)
    i = positions.astype(np.uint64)
    h = (i + k[0] + (i >> np.uint64(32)) * np.uint64(0x9E3779B9)) & UINT32
    h = (h ^ h >> np.uint64(16)) * np.uint64(0x7FEB352D) & UINT32
    h = (h ^ h >> np.uint64(15) ^ k[1]) * np.uint64(0x846CA68B) & UINT32
    return h ^ h >> np.uint64(16)


def noise(kind, positions, *, key, parameter, step):
    """n ~ U(-1, 1) or N(0, 1) at int64 element positions."""
    word = random_words(positions >> 1, key=key, parameter=parameter, step=step).astype(np.int64)
    a, b, odd = word & 0xFFFF, word >> 16, positions & 1
    if kind == "uniform":
        return (2 * np.where(odd, b, a) + 1) / 2**16 - 1
    r = np.sqrt(-2 * np.log((a + 0.5) / 2**16))
    phi = np.pi * ((b % 2**15 + 0.5) / 2**15 - 0.5)
    return r * np.where(odd, np.sin(phi), np.cos(phi) * np.where(b >> 15, -1, 1))


def positions(tensor):
    """Position of each real number: in memory for tensors without gaps, row-major for others."""
    offsets = sum(
        (index * stride for index, stride in zip(np.indices(tensor.shape), tensor.stride())),
        start=np.zeros(tuple(tensor.shape), np.int64),
    )
    row_major = np.arange(tensor.numel()).reshape(offsets.shape)
    if not np.array_equal(np.sort(offsets, axis=None), np.arange(tensor.numel())):
        offsets = row_major
    return offsets[..., None] * 2 + np.arange(2) if tensor.is_complex() else offsets


class Rounded:
    """A float64 array and a bound on the error of computing it with one rounding of `unit` per operation."""

    def __init__(self, value, bound, unit):
        self.value, self.bound, self.unit = value, bound, unit

    def _rounded(self, value, bound):
        return Rounded(value, bound + self.unit * np.abs(value), self.unit)

    def __add__(self, other):
        return self._rounded(self.value + other.value, self.bound + other.bound)

    def __sub__(self, other):
        return self + -other

    def __mul__(self, other):
        spread = np.abs(self.value) * other.bound + np.abs(other.value) * self.bound + self.bound * other.bound
        return self._rounded(self.value * other.value, spread)

    def __neg__(self):
        return Rounded(-self.value, self.bound, self.unit)

    def __abs__(self):
        return Rounded(np.abs(self.value), self.bound, self.unit)

    def __truediv__(self, other):
        quotient = self.value / other.value
        spread = (self.bound + np.abs(quotient) * other.bound) / (np.abs(other.value) - other.bound)
        return self._rounded(quotient, spread)

    def sqrt(self):
        root = np.sqrt(self.value)
        return self._rounded(root, root - np.sqrt(np.maximum(self.value - self.bound, 0)))

    def norm(self):
        """Euclidean norm of all elements, rounded once."""
        return self._rounded(np.sqrt(np.sum(self.value**2)), np.sqrt(np.sum(self.bound**2)))

    def rms(self, axis):
        """Root mean square over `axis`, rounded once."""
        mean = {"axis": axis, "keepdims": True}
        return self._rounded(np.sqrt(np.mean(self.value**2, **mean)), np.sqrt(np.mean(self.bound**2, **mean)))


class Oracle:
    """The numbers of one parameter: `x`, `y`, the `buffers` and the step `count`. A rule overrides `update`.

    The options are those of the parameter's group. ``recovered_along``: the directions along which x need not be stored
    if the update is the momentum. The small methods are the parts that the wrong rules of
    test_oracle_parity.py replace.
    """

    def __init__(self, param, index, rank=0):
        self.index, self.rank = index, rank
        self.dims, self.positions = param.dim(), positions(param)
        self.unit = torch.finfo(torch.promote_types(param.dtype, torch.float32)).eps / 2
        self.is_exact = torch.finfo(param.dtype).eps / 2 == self.unit
        self.x = self.y = self.exact(values(param))
        self.buffers, self.count, self.clip = {}, 0, None

    def exact(self, value):
        return Rounded(value, np.zeros_like(value), self.unit)

    def constant(self, number):
        """An option, rounded to the precision of the arithmetic."""
        return Rounded(np.float64(number), self.unit * abs(number), self.unit)

    def inner_rate(self, o):
        extrap_lr = o["extrap_ratio"] * float(o["lr"]) if o["extrap_lr"] is None else o["extrap_lr"]
        return self.constant(float(extrap_lr))

    def scaled(self, o, along):
        return along * self.x * self.x if o["extrap_scale"] == "adaptive" else along

    def recovers_base(self, o):
        """Whether x is not stored, but computed from y and the first moment."""
        along = self.recovered_along
        if o.get("nesterov") or o["extrap_norm"]:
            along = along[:1]
        known = o["noise"] is None and o["extrap_scale"] == "absolute" and o["state_dtype"] == torch.float32
        return known and self.is_exact and self.first_moment() is not None and o["extrapolation"] in along

    def decay_point(self):
        return self.x

    def decay(self, o, *, decoupled):
        return float(o["weight_decay"]) * (o["decoupled_weight_decay"] == decoupled)

    def unscaled(self, o, grad, scale):
        g = self.exact(values(grad))
        if scale != 1:
            g = g * self.constant(1 / scale)
        if self.clip is not None:
            g = g * self.constant(self.clip)
        return -g if o["maximize"] else g

    def prepared(self, o, grad, scale):
        g = self.unscaled(o, grad, scale)
        decay = self.decay(o, decoupled=False)
        return g + self.constant(decay) * self.decay_point() if decay else g

    def update(self, o, g, l):
        """Advance the buffers; return the update u and the direction z of past_gradient."""
        raise NotImplementedError

    def first_moment(self):
        """The momentum, or None without one."""
        return next(iter(self.buffers.values()), None)

    def first_direction(self, o, g, l):
        """z of the first half of an extragradient step; the buffers stay."""
        raise NotImplementedError

    def noise_point(self, before):
        return before

    def noise_key(self, o):
        return o["seed"] + self.rank

    def noise(self, o, x, g, l):
        scale = o["noise_scale"]
        if scale == "filter" and self.dims < 2:
            return self.exact(np.zeros_like(x.value))
        n = noise(o["noise"], self.positions, key=self.noise_key(o), parameter=self.index, step=self.count)
        error = np.full_like(n, GAUSSIAN_ERROR) if o["noise"] == "gaussian" else np.zeros_like(n)
        amplitude = self.constant(o["noise_std"])
        if scale == "gradient":
            amplitude = amplitude * abs(l)
        elif scale in ("tensor", "filter") and x.value.size:
            amplitude = amplitude * x.rms(tuple(range(scale == "filter", x.value.ndim)))
        return Rounded(n, error, self.unit) * amplitude

    def extrapolate(self, o, g, l=None, scale=1.0):
        self.raw = self.unscaled(o, g, scale)  # before the decay joined it
        g, l = self.prepared(o, g, scale), self.prepared(o, g if l is None else l, scale)
        self.y = self.x - self.inner_rate(o) * self.scaled(o, self.first_direction(o, g, l))

    def step(self, o, g, l=None, scale=1.0):
        self.count += 1
        before = self.x
        self.raw = self.unscaled(o, g, scale)
        g, l = self.prepared(o, g, scale), self.prepared(o, g if l is None else l, scale)
        u, z = self.update(o, g, l - g if o["extrapolation"] == "gradient_difference" else l)
        lr, decay = float(o["lr"]), self.decay(o, decoupled=True)
        if decay:
            self.x = self.x * self.constant(1 - lr * decay)
        self.x = self.x - self.constant(lr) * u
        self.y = self.x
        along = {"past_gradient": z, "gradient_difference": z, "past_update": u, "momentum": self.first_moment() or u}
        if o["extrapolation"] in along:
            shift = self.inner_rate(o) * self.scaled(o, along[o["extrapolation"]])
            self.y = self.y - shift
            if self.recovers_base(o):
                self.x = Rounded(self.x.value, (self.y + shift).bound, self.unit)
        if o["noise"] is not None:
            self.y = self.y + self.noise(o, self.noise_point(before), g, l)


class SGD(Oracle):
    recovered_along = ("momentum", "past_update")

    def gradient_weight(self, o):
        return 1 if "momentum_buffer" not in self.buffers else 1 - o["dampening"]

    def update(self, o, g, l):
        if not o["momentum"]:
            return g, l
        momentum = self.constant(o["momentum"])
        v = g * self.constant(self.gradient_weight(o))
        if "momentum_buffer" in self.buffers:
            v = v + momentum * self.buffers["momentum_buffer"]
        self.buffers["momentum_buffer"] = v
        return (g + momentum * v if o["nesterov"] else v), l

    def first_direction(self, o, g, l):
        return l


class LARS(SGD):
    recovered_along = ()

    def trust(self, o):
        """|g| is taken before the decay joined; decoupled decay never joins, so it is not counted."""
        norm_x, norm_g = self.x.norm(), self.raw.norm()
        if not norm_x.value * norm_g.value:
            return self.constant(1.0)
        decay = self.constant(self.decay(o, decoupled=False))
        return self.constant(o["trust_coefficient"]) * norm_x / (norm_g + decay * norm_x + self.constant(o["eps"]))

    def update(self, o, g, l):
        trust = self.trust(o)
        return super().update(o, g * trust, l * trust)

    def first_direction(self, o, g, l):
        return l * self.trust(o)


class Adam(Oracle):
    """And AdamW, whose decay is decoupled."""

    recovered_along = ("momentum",)

    def average(self, name, beta, new):
        old = self.buffers.get(name, self.exact(np.zeros_like(new.value)))
        return self.constant(float(beta)) * old + self.constant(1 - float(beta)) * new

    def unbiased(self, moment, beta, count):
        return moment * self.constant(1 / (1 - float(beta) ** count))

    def denominator(self, o, second_moment, count):
        return self.unbiased(second_moment, o["betas"][1], count).sqrt() + self.constant(o["eps"])

    def second_moment(self, o, g):
        return self.average("exp_avg_sq", o["betas"][1], g * g)

    def update(self, o, g, l):
        beta = o["betas"][0]
        self.buffers = {"exp_avg": self.average("exp_avg", beta, g), "exp_avg_sq": self.second_moment(o, g)}
        d = self.denominator(o, self.buffers["exp_avg_sq"], self.count)
        return self.unbiased(self.buffers["exp_avg"], beta, self.count) / d, l / d

    def first_direction(self, o, g, l):
        return l / self.denominator(o, self.second_moment(o, g), self.count + 1)


class LAMB(Adam):
    recovered_along = ()

    def decay(self, o, *, decoupled):
        return 0.0  # part of the update

    def update(self, o, g, l):
        u, z = super().update(o, g, l)
        u = u + self.constant(float(o["weight_decay"])) * self.x
        norm_x, norm_u = self.x.norm(), u.norm()
        return (u * (norm_x / norm_u) if norm_x.value * norm_u.value else u), z


def gradient_norm(gradients, scale=1.0):
    """Norm of all gradients, once unscaled."""
    return np.sqrt(sum(np.sum(values(g) ** 2) for g in gradients)) / scale


def assert_within(actual, expected, name):
    """`actual` is `expected` up to the arithmetic's roundings, and one more where its dtype is a narrower one."""
    limits = torch.finfo(actual.dtype)
    tolerance = 2 * expected.bound  # twice: the sums may be associated otherwise, and the oracle rounds as well
    if limits.eps / 2 > expected.unit:
        tolerance = tolerance + limits.eps / 2 * (np.abs(expected.value) + tolerance)
    tolerance = tolerance + limits.tiny * limits.eps  # subnormal numbers
    error = np.abs(values(actual) - expected.value)
    worst = np.max(error / tolerance, initial=0.0)  # NaN where there is one
    assert worst <= 1.0, f"{name}: error {worst:.3g} times what rounding explains"


def assert_matches(optimizer, oracles):
    """Parameters, base iterates, buffers and step counts of `optimizer` are those of `oracles`."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for p, expected in zip(params, oracles):
        assert_within(p, expected.y, f"parameter {expected.index}")
        state = optimizer.state.get(p, {})
        assert state.get("step", 0) == expected.count
        if expected.count:
            assert_within(optimizer.base_of(p), expected.x, f"base of parameter {expected.index}")
        for name, buffer in expected.buffers.items():
            assert_within(state[name], buffer, f"{name} of parameter {expected.index}")
