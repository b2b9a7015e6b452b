// In which formats the state of a tensor is stored. The arithmetic does not know them.
#pragma once

#include <type_traits>

#include "core/config.h"
#include "core/formats.h"

namespace extrap {
inline namespace EXTRAP_ISA {

template <class BaseFormat, class SignedFormat, class UnsignedFormat>
struct StateLayout {
  using Base = BaseFormat;
  using Signed = SignedFormat;      // of buffers that take any sign: rounded to nearest
  using Unsigned = UnsignedFormat;  // of buffers that are never negative: rounded stochastically
};

// Whether numbers in a format share an exponent with others.
template <class T>
constexpr bool kInBlocks = std::is_same_v<T, Block8>;

// Whether numbers in a format lie in two tensors.
template <class T>
constexpr bool kIsSplit = std::is_same_v<T, Float24>;

// All that a kernel is compiled for but its rule. P, G: of parameters and gradients.
template <class P, class G, class State>
struct TensorTypes {
  using Param = P;
  using Gradient = G;
  using Base = typename State::Base;
  using Signed = typename State::Signed;
  using Unsigned = typename State::Unsigned;
  using A = typename Format<P>::Value;  // the arithmetic type
  static constexpr TensorFormats kFormats = {Format<P>::kDType, Format<G>::kDType, Format<Base>::kDType,
                                             Format<Signed>::kDType, Format<Unsigned>::kDType};
};

// Whether kernels may find x not stored, but y and the first buffer that it is recovered from.
template <class Rule, class Types>
constexpr bool kRecoversBase = Rule::Buffers::kCount > 0 &&
                               Rule::kNorm == Norm::none&& std::is_same_v<typename Types::Param, typename Types::Base>&&
                                                  std::is_same_v<typename Types::Signed, typename Types::Base>;

// The state in the arithmetic type.
template <class A>
using FullState = StateLayout<A, A, A>;

// All buffers in a format of fewer bits, and for parameters of 16 bits the base iterate, too.
template <class P, class T>
using CompactState = StateLayout<std::conditional_t<sizeof(P) == 2, Float24, float>, T, T>;

}  // namespace EXTRAP_ISA
}  // namespace extrap
