// IEEE binary64, which is the arithmetic type itself.
#pragma once

#include "core/format.h"

namespace extrap {
inline namespace EXTRAP_ISA {

template <>
struct Format<double> {
  using Value = double;
  static constexpr DType kDType = DType::float64;
  template <class V>
  using Stored = V;
  template <class V>
  static EXTRAP_HD V decode(V stored) {
    return stored;
  }
  template <class V>
  static EXTRAP_HD V encode(V v) {
    return v;
  }
};

}  // namespace EXTRAP_ISA
}  // namespace extrap
