// A toy: buffers in float16, all of them rounded to nearest.
#pragma once

#include "core/formats/float16.h"

namespace extrap {

struct RoundedFloat16 {
  uint16_t bits;
};

inline namespace EXTRAP_ISA {

template <>
struct Format<RoundedFloat16> : Format<Float16> {
  using Format<Float16>::encode;
  template <class V>
  static EXTRAP_HD typename Format<Float16>::template Stored<V> encode(V v, typename Ops<V>::Word) {
    return Format<Float16>::encode(v);
  }
};

}  // namespace EXTRAP_ISA
}  // namespace extrap
