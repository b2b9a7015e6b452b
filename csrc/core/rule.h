// What every rule says of itself besides its arithmetic.
#pragma once

#include "core/macros.h"

namespace extrap {
inline namespace EXTRAP_ISA {

constexpr bool kSigned = true, kUnsigned = false;

// The buffers of a rule, in its order. Those that are never negative are stored in a format of their own.
template <bool... kSigns>
struct BufferSigns {
  static constexpr int kCount = sizeof...(kSigns);
  static constexpr bool kAnyUnsigned = !(kSigns && ...);

  static constexpr EXTRAP_HD bool is_signed(int buffer) {
    int k = 0;
    bool sign = kSigned;
    ((sign = k++ == buffer ? kSigns : sign), ...);
    return sign;
  }
};

// The variants of a rule that differ in the number of their buffers, of which the options of a group choose one.
template <template <class> class... Rules>
struct RuleVariants {};

}  // namespace EXTRAP_ISA
}  // namespace extrap
