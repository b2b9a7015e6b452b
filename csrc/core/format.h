// A format is a codec of one number: how its bits in memory become the arithmetic type, and back. Written over lane
// types, so that it serves single numbers and vectors of them; who moves the bits is in cpu/tile.h and cuda/tile.h.
#pragma once

#include "core/config.h"
#include "core/ops.h"

namespace extrap {
inline namespace EXTRAP_ISA {

// T: what one number is in memory. Each specialization has
//   Value            the arithmetic type
//   kDType           its name among the dtypes of tensors
//   Stored<V>        what as many numbers as V has lanes are in memory
//   decode<V>, encode
template <class T>
struct Format;

}  // namespace EXTRAP_ISA
}  // namespace extrap
