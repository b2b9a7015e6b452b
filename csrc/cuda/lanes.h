// Several numbers as one lane type, so that a thread looks at the options of a launch once for all of them.
#pragma once

#include "core/ops.h"

namespace extrap::cuda {

template <class A, int kCount>
struct Lanes {
  static constexpr int kLanes = kCount;
  A lane[kCount];

  EXTRAP_HD A operator[](int k) const { return lane[k]; }

  // Of a lane that is known at run time only; without addresses, so that the lanes stay in registers.
  EXTRAP_HD void set(int at, A value) {
    EXTRAP_UNROLL
    for (int k = 0; k < kCount; ++k)
      if (k == at) lane[k] = value;
  }

  // of(k): number k.
  template <class Of>
  static EXTRAP_HD Lanes each(const Of& of) {
    Lanes v;
    EXTRAP_UNROLL
    for (int k = 0; k < kCount; ++k) v.lane[k] = of(k);
    return v;
  }

#define EXTRAP_LANE_OPERATOR(op)                                \
  friend EXTRAP_HD Lanes operator op(Lanes a, Lanes b) {        \
    return each([&](int k) { return a.lane[k] op b.lane[k]; }); \
  }                                                             \
  friend EXTRAP_HD Lanes operator op(Lanes a, A b) {            \
    return each([&](int k) { return a.lane[k] op b; });         \
  }                                                             \
  friend EXTRAP_HD Lanes operator op(A a, Lanes b) {            \
    return each([&](int k) { return a op b.lane[k]; });         \
  }
  EXTRAP_LANE_OPERATOR(+)
  EXTRAP_LANE_OPERATOR(-)
  EXTRAP_LANE_OPERATOR(*)
  EXTRAP_LANE_OPERATOR(/)
  EXTRAP_LANE_OPERATOR(^)
#undef EXTRAP_LANE_OPERATOR

#define EXTRAP_LANE_COMPARISON(op)                                                   \
  friend EXTRAP_HD Lanes<bool, kCount> operator op(Lanes a, Lanes b) {               \
    return Lanes<bool, kCount>::each([&](int k) { return a.lane[k] op b.lane[k]; }); \
  }
  EXTRAP_LANE_COMPARISON(==)
  EXTRAP_LANE_COMPARISON(!=)
  EXTRAP_LANE_COMPARISON(<)
  EXTRAP_LANE_COMPARISON(>)
  EXTRAP_LANE_COMPARISON(<=)
  EXTRAP_LANE_COMPARISON(>=)
#undef EXTRAP_LANE_COMPARISON

  friend EXTRAP_HD Lanes operator>>(Lanes a, int bits) {
    return each([&](int k) { return a.lane[k] >> bits; });
  }

  friend EXTRAP_HD Lanes operator-(Lanes a) {
    return each([&](int k) { return -a.lane[k]; });
  }
};

template <class A, int kCount>
EXTRAP_HD Lanes<A, kCount> select(Lanes<bool, kCount> condition, Lanes<A, kCount> a, Lanes<A, kCount> b) {
  return Lanes<A, kCount>::each([&](int k) { return condition.lane[k] ? a.lane[k] : b.lane[k]; });
}

}  // namespace extrap::cuda

namespace extrap {
inline namespace EXTRAP_ISA {

template <class A, int kCount>
struct Ops<cuda::Lanes<A, kCount>> {
  using V = cuda::Lanes<A, kCount>;
  static EXTRAP_HD V sqrt(V v) {
    return V::each([&](int k) { return Ops<A>::sqrt(v.lane[k]); });
  }
};

}  // namespace EXTRAP_ISA
}  // namespace extrap
