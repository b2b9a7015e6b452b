// The dtypes that tensors may have, by the names of torch: of real numbers, and uint8 for codes of them.
#pragma once

#include <cstdint>

// X(name, bytes)
#define EXTRAP_FOR_EACH_DTYPE(X) X(float32, 4) X(float64, 8) X(bfloat16, 2) X(float16, 2) X(uint8, 1)

namespace extrap {

#define EXTRAP_NAME(name, bytes) name,
enum class DType : uint8_t { EXTRAP_FOR_EACH_DTYPE(EXTRAP_NAME) };
#undef EXTRAP_NAME

}  // namespace extrap
