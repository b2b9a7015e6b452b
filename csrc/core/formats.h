// The formats that there are, and where they may occur. Block8 is for moments alone, Float24 for the base iterate.
#pragma once

#include "core/formats/bfloat16.h"
#include "core/formats/block8.h"
#include "core/formats/float16.h"
#include "core/formats/float24.h"
#include "core/formats/float32.h"
#include "core/formats/float64.h"

#define EXTRAP_FOR_EACH_FORMAT(X) X(float) X(double) X(BFloat16) X(Float16)

// Those in which momentum and moments of single precision may be stored, besides float.
#define EXTRAP_FOR_EACH_MOMENT_FORMAT(X) X(BFloat16) X(Block8)

// PAIR(parameter, gradient). CMakeLists.txt reads these lines, too: it makes one object of CUDA kernels of each.
#define EXTRAP_FOR_EACH_PAIR(PAIR) \
  PAIR(float, float)               \
  PAIR(double, double)             \
  PAIR(BFloat16, BFloat16)         \
  PAIR(BFloat16, float)            \
  PAIR(Float16, Float16)           \
  PAIR(Float16, float)
