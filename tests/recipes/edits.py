"""What the toys change in files that are there: for each recipe and file, pieces of text and what takes their place."""

RULE = {
    "extrap_kernels/__init__.py": [
        (
            "    from extrap_kernels.sgd import ExtrapSGD\n",
            "    from extrap_kernels.sgd import ExtrapSGD\n    from extrap_kernels.sign import ExtrapSign\n",
        ),
        ('    "ExtrapSGD",\n', '    "ExtrapSGD",\n    "ExtrapSign",\n'),
    ],
}

SCALAR = {
    "extrap_kernels/scalars.py": [
        ('Scalar("noise_std", "float64"),\n', 'Scalar("noise_std", "float64"),\n    Scalar("gain", "float64", 1),\n'),
    ],
    "csrc/core/config.h": [("X(double, noise_std, 0)", "X(double, noise_std, 0) X(double, gain, 1)")],
}

DIRECTION = {
    "csrc/core/direction.h": [
        ("momentum, gradient_difference };", "momentum, gradient_difference, double_update };"),
        ('"gradient_difference"};', '"gradient_difference", "double_update"};'),
        ("  return z;\n", "  if (direction == Extrapolation::double_update) return u + u;\n  return z;\n"),
    ],
    "extrap_kernels/options.py": [
        ('"momentum", "gradient_difference"),', '"momentum", "gradient_difference", "double_update"),'),
    ],
    "extrap_kernels/reference/step.py": [
        (
            "        return u\n",
            '        return u\n    if group["extrapolation"] == "double_update":\n        return u + u\n',
        ),
    ],
    "triton_kernels/kernels/direction.py": [
        ("    past_update: Any\n", "    past_update: Any\n    double_update: Any\n"),
        ("        direction == PAST_UPDATE,", "        direction == PAST_UPDATE,\n        direction == DOUBLE_UPDATE,"),
        ("EXTRAGRADIENT, MOMENTUM", 'DOUBLE_UPDATE = code("extrapolation", "double_update")\nEXTRAGRADIENT, MOMENTUM'),
        ("tl.where(e.momentum, m, z))", "tl.where(e.momentum, m, tl.where(e.double_update, u + u, z)))"),
    ],
}

_NOISE_OF = """template <class F, class U>
EXTRAP_HD NoisePair<F> noise_of(Noise kind, U word) {
"""
_COIN_NOISE = """template <class F, class U>
EXTRAP_HD NoisePair<F> coin_noise(U word) {
  return {2.0f * Ops<F>::from_integer(word & 1u) - 1.0f, 2.0f * Ops<F>::from_integer(word >> 31) - 1.0f};
}

"""
_REFERENCE_COIN = """def _coin(word: Tensor) -> tuple[Tensor, Tensor]:
    return 2.0 * (word & 1).float() - 1.0, 2.0 * (word >> 31).float() - 1.0


"""
_TRITON_COIN = """@triton.jit
def coin_pair(word):
    return (word & 1).to(tl.float32) * 2.0 - 1.0, (word >> 31).to(tl.float32) * 2.0 - 1.0


"""

NOISE = {
    "csrc/core/noise.h": [
        ("uniform, gaussian };", "uniform, gaussian, coin };"),
        ('"gaussian"};', '"gaussian", "coin"};'),
        (_NOISE_OF, _COIN_NOISE + _NOISE_OF + "  if (kind == Noise::coin) return coin_noise<F>(word);\n"),
    ],
    "extrap_kernels/options.py": [('(None, "uniform", "gaussian")', '(None, "uniform", "gaussian", "coin")')],
    "extrap_kernels/reference/noise.py": [
        ("def _gaussian(", _REFERENCE_COIN + "def _gaussian("),
        ('"gaussian": _gaussian}', '"gaussian": _gaussian, "coin": _coin}'),
    ],
    "triton_kernels/kernels/distributions.py": [
        ("@triton.jit\ndef gaussian_pair(", _TRITON_COIN + "@triton.jit\ndef gaussian_pair("),
    ],
}

FORMAT = {
    "triton_kernels/kernels/formats.py": [
        (
            '    else:\n        tl.static_assert(False, "no unsigned',
            "    elif FORMAT == tl.float16:\n        return value.to(FORMAT)\n"
            '    else:\n        tl.static_assert(False, "no unsigned',
        ),
    ],
    "csrc/core/formats.h": [
        (
            '#include "core/formats/float64.h"\n',
            '#include "core/formats/float64.h"\n#include "core/formats/rounded_float16.h"\n',
        ),
        ("_MOMENT_FORMAT(X) X(BFloat16)", "_MOMENT_FORMAT(X) X(BFloat16) X(RoundedFloat16)"),
    ],
    "extrap_kernels/state/formats.py": [
        (
            "    torch.float32: None,\n",
            "    torch.float32: None,\n    torch.float16: StateFormat(Format(torch.float16), Format(torch.float16)),\n",
        ),
    ],
}

EDITS = {"rule": RULE, "scalar": SCALAR, "direction": DIRECTION, "noise": NOISE, "format": FORMAT}
