// Sums of squares in double precision: of what a rule needs the norms of, and of any numbers.
#pragma once

#include "core/step.h"
#include "cpu/kernels.h"
#include "cpu/tile.h"

namespace extrap {
inline namespace EXTRAP_ISA {

// Squares are summed in 16 lanes by position, whatever the width of the vectors.
struct SquareSum {
  static constexpr int kLanes = 16;
  static_assert(kBlock % kLanes == 0);
  double lanes[kLanes] = {};

  template <class A>
  EXTRAP_HD void add(const A* x) {
    for (int k = 0; k < kLanes; ++k) lanes[k] += static_cast<double>(x[k]) * static_cast<double>(x[k]);
  }

  template <class A>
  EXTRAP_HD void add_block(const A* x) {
    for (int k = 0; k < kBlock; k += kLanes) add(x + k);
  }

  EXTRAP_HD double total() const {
    double sum = 0;
    for (double lane : lanes) sum += lane;
    return sum;
  }
};

// x and what the norm is taken of besides, for the elements of a block.
template <class Rule, class Types>
EXTRAP_HD void norm_block(const StepConstants<typename Types::A>& c, const Rule& rule, const Block<Rule, Types>& b,
                          typename Types::A* base, typename Types::A* scaled) {
  using A = typename Types::A;
  using V = typename VectorOf<A>::type;
  constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(A));
  for (int i = 0; i < kBlock; i += kLanes) {
    const V x = b.template load_base<V>(i, c.adopts);
    V u = unscaled_gradient(c, load<V>(b.gradient + i));
    if constexpr (Rule::kNorm == Norm::update) {
      V buffers[b.kBuffers], z;
      for (int k = 0; k < b.kBuffers; ++k) buffers[k] = b.template load_buffer<V>(k, i);
      const V g = u;
      rule.direction(g, g, x, buffers, u, z);
    }
    store(base + i, x);
    store(scaled + i, u);
  }
}

template <class Rule, class Types>
EXTRAP_HD void prefetch_to_sum(const Block<Rule, Types>& b, bool with_y) {
  if (with_y && !b.base_is_y()) prefetch<Prefetch::to_sum>(b.y, kBlock * sizeof *b.y);
  prefetch_base<Prefetch::to_sum>(b);
  if constexpr (Rule::kNorm == Norm::update)
    for (int k = 0; k < b.kBuffers; ++k) prefetch<Prefetch::to_sum>(b.buffers[k], kBlock * b.buffer_size(k));
  prefetch<Prefetch::to_sum>(b.gradient, kBlock * sizeof *b.gradient);
}

template <class Rule, class Types>
EXTRAP_HD void prefetch_direction(const Block<Rule, Types>& b, const StepConstants<typename Types::A>& c) {
  const bool of_momentum = c.extrapolation == Extrapolation::momentum;
  for (int k = 0; k < b.kBuffers; ++k)
    if (of_momentum ? k == 0 : reads_buffer<Rule>(c, k))
      prefetch<Prefetch::to_sum>(b.buffers[k], kBlock * b.buffer_size(k));
  if (reads_base(c)) prefetch_base<Prefetch::to_sum>(b);
  if (of_momentum) return;
  prefetch<Prefetch::to_sum>(b.gradient, kBlock * sizeof *b.gradient);
  if (b.local) prefetch<Prefetch::to_sum>(b.local, kBlock * sizeof *b.local);
}

template <class Rule, class Types>
NormSums norm(const StepConfig& config, const TensorEntry& t, int64_t begin, int64_t count) {
  using A = typename Types::A;
  if (!t.gradient) return {};
  const StepConstants<A> c(config, Rule::kOwnDecay);
  const Rule rule(config, t);
  SquareSum of_x, of_scaled;
  alignas(64) A x[kBlock], scaled[kBlock];
  const auto add = [&](const Block<Rule, Types>& b, int64_t in_tensor) {
    norm_block<Rule, Types>(c, rule, b, x, scaled);
    for (int64_t k = in_tensor; k < kBlock; ++k) scaled[k] = 0;
    of_x.add_block(x);
    of_scaled.add_block(scaled);
  };
  int64_t i = begin;
  for (; i + kBlock <= begin + count; i += kBlock) {
    const Block<Rule, Types> block(t, i);
    prefetch_to_sum(block, c.adopts);
    add(block, kBlock);
  }
  if (i < begin + count) {
    const int64_t left = begin + count - i;
    add(PaddedBlock<Rule, Types>({t, i}, static_cast<size_t>(left), c.adopts).block, left);
  }
  return {of_x.total(), of_scaled.total()};
}

// What the norm is taken of for the elements of a block: what the step will extrapolate along, in its units.
template <class Rule, class Types>
EXTRAP_HD void direction_block(const StepConstants<typename Types::A>& c, const Rule& rule, const Block<Rule, Types>& b,
                               typename Types::A* along) {
  using A = typename Types::A;
  using V = typename VectorOf<A>::type;
  constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(A));
  constexpr int kBuffers = Block<Rule, Types>::kBuffers;
  for (int i = 0; i < kBlock; i += kLanes) {
    V buffers[kBuffers > 0 ? kBuffers : 1] = {}, x = {};
    for (int k = 0; k < kBuffers; ++k)
      if (reads_buffer<Rule>(c, k)) buffers[k] = b.template load_buffer<V>(k, i);
    if (reads_base(c)) x = b.template load_base<V>(i, c.adopts);
    const V g = prepared_gradient(c, load<V>(b.gradient + i), x);
    const V l = b.local ? prepared_gradient(c, load<V>(b.local + i), x) : g;
    store(along + i, measured(c.adaptive, direction_to_come(rule, c, g, l, x, buffers), x));
  }
}

// Of the momentum, as it is before the step.
template <class Rule, class Types>
EXTRAP_HD void momentum_block(const StepConstants<typename Types::A>& c, const Block<Rule, Types>& b,
                              typename Types::A* along) {
  using V = typename VectorOf<typename Types::A>::type;
  constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(typename Types::A));
  for (int i = 0; i < kBlock; i += kLanes) {
    V x = {};
    if (reads_base(c)) x = b.template load_base<V>(i, c.adopts);
    store(along + i, measured(c.adaptive, b.template load_buffer<V>(0, i), x));
  }
}

template <class Rule, class Types>
double direction(const StepConfig& config, const TensorEntry& t, int64_t begin, int64_t count) {
  using A = typename Types::A;
  const StepConstants<A> c(config, Rule::kOwnDecay);
  if (!t.gradient || c.extrapolation == Extrapolation::none) return 0;
  const Rule rule(config, t);
  const bool of_momentum = c.extrapolation == Extrapolation::momentum;
  SquareSum sum;
  alignas(64) A along[kBlock];
  const auto add = [&](const Block<Rule, Types>& b, int64_t in_tensor) {
    if constexpr (Block<Rule, Types>::kBuffers > 0)
      if (of_momentum) momentum_block(c, b, along);
    if constexpr (Rule::kNorm == Norm::none)
      if (!of_momentum) direction_block<Rule, Types>(c, rule, b, along);
    for (int64_t k = in_tensor; k < kBlock; ++k) along[k] = 0;
    sum.add_block(along);
  };
  int64_t i = begin;
  for (; i + kBlock <= begin + count; i += kBlock) {
    const Block<Rule, Types> block(t, i);
    prefetch_direction(block, c);
    add(block, kBlock);
  }
  if (i < begin + count) {
    const int64_t left = begin + count - i;
    add(PaddedBlock<Rule, Types>({t, i}, static_cast<size_t>(left), c.adopts).block, left);
  }
  return sum.total();
}

// T: the format of the numbers. low: the low bytes of those that are split.
template <class T>
double square_sum(const void* values, const uint8_t* low, int64_t count) {
  using A = typename Format<T>::Value;
  using V = typename VectorOf<A>::type;
  const T* x = static_cast<const T*>(values);
  SquareSum sum;
  alignas(64) A block[kBlock];
  const auto add = [&](const T* from, const uint8_t* low_from) {
    for (int k = 0; k < kBlock; k += kVectorBytes / static_cast<int>(sizeof(A)))
      store(block + k, load<V>(from + k, low_from + (kIsSplit<T> ? k : 0)));
    sum.add_block(block);
  };
  int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    prefetch<Prefetch::to_sum>(x + i, kBlock * sizeof(T));
    if constexpr (kIsSplit<T>) prefetch<Prefetch::to_sum>(low + i, kBlock);
    add(x + i, low + (kIsSplit<T> ? i : 0));
  }
  if (i < count) {
    const auto left = static_cast<size_t>(count - i);
    T padded[kBlock] = {};
    uint8_t padded_low[kBlock] = {};
    memcpy(padded, x + i, left * sizeof(T));
    if constexpr (kIsSplit<T>) memcpy(padded_low, low + i, left);
    add(padded, padded_low);
  }
  return sum.total();
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
