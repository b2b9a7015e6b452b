// The dtypes of real numbers that tensors may have: the names of torch, and how DLPack writes them.
#pragma once

#include <cstdint>

// X(name, DLDataTypeCode, bits)
#define EXTRAP_FOR_EACH_DTYPE(X) X(float32, 2, 32) X(float64, 2, 64) X(bfloat16, 4, 16) X(float16, 2, 16)

namespace extrap {

#define EXTRAP_NAME(name, code, bits) name,
enum class DType : uint8_t { EXTRAP_FOR_EACH_DTYPE(EXTRAP_NAME) };
#undef EXTRAP_NAME

}  // namespace extrap
