// The formats that there are, and the pairs of them that parameters and their gradients may have.
#pragma once

#include "core/formats/bfloat16.h"
#include "core/formats/float16.h"
#include "core/formats/float32.h"
#include "core/formats/float64.h"

#define EXTRAP_FOR_EACH_FORMAT(X) X(float) X(double) X(BFloat16) X(Float16)

// PAIR(parameter, gradient). CMakeLists.txt reads these lines, too: it makes one object of CUDA kernels of each.
#define EXTRAP_FOR_EACH_PAIR(PAIR) \
  PAIR(float, float)               \
  PAIR(double, double)             \
  PAIR(BFloat16, BFloat16)         \
  PAIR(BFloat16, float)            \
  PAIR(Float16, Float16)           \
  PAIR(Float16, float)
