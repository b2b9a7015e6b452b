// The options of one launch: the same for every tensor in it.
#pragma once

#include <cstdint>

namespace extrap {

enum class DType : uint8_t { float32, float64, bfloat16, float16 };
enum class Extrapolation : uint8_t { none, past_gradient, past_update };
enum class Noise : uint8_t { none, uniform, gaussian };
// What a rule needs the norm of for each tensor, besides that of x, to scale its step.
enum class Norm : uint8_t { none, gradient, update };
enum class NoiseScale : uint8_t { absolute, tensor, filter, gradient };

struct StepConfig {
  double lr = 0;
  double extrap_lr = 0;
  double weight_decay = 0;
  double momentum = 0;
  double dampening = 0;
  double beta1 = 0;
  double beta2 = 0;
  double eps = 0;
  double trust_coefficient = 1;
  double noise_std = 0;
  double grad_scale = 1;
  double clip = 1;   // factor of the gradients after grad_scale
  uint64_t key = 0;  // seed + rank
  Extrapolation extrapolation = Extrapolation::none;
  Noise noise = Noise::none;
  NoiseScale noise_scale = NoiseScale::absolute;
  bool nesterov = false;
  bool maximize = false;
  bool decoupled_weight_decay = false;
  bool correct = true;  // false: the first half of an extragradient step, which writes y alone
};

}  // namespace extrap
