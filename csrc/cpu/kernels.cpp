// The step on the CPU. Compiled once for each instruction set, with EXTRAP_ISA naming it.
#include "cpu/kernels.h"

#include <cstring>

#include "core/noise.h"
#include "core/rules.h"
#include "core/step.h"
#include "cpu/simd.h"

namespace extrap {
namespace EXTRAP_ISA {
namespace {

// Four vectors of floats: what one vector of Philox counters gives noise for.
constexpr int kBlock = 4 * kFloats;

// What one block of a tensor is made of; null pointers where there is no such buffer.
template <class P, class G, class A, int kBuffers>
struct Block {
  P* y;
  A* base;
  A* buffers[kBuffers > 0 ? kBuffers : 1];
  const G* gradient;
  const G* local;

  EXTRAP_HD Block(const TensorEntry& t, int64_t at)
      : y(static_cast<P*>(t.y) + at),
        base(static_cast<A*>(t.base) + at),
        gradient(static_cast<const G*>(t.gradient) + at),
        local(t.local ? static_cast<const G*>(t.local) + at : nullptr) {
    for (int k = 0; k < kBuffers; ++k) buffers[k] = static_cast<A*>(t.buffers[k]) + at;
  }
};

// Distances of the software prefetch, in bytes. The hardware's own stops at page ends: it left 10% of the bandwidth of
// a step, and a third of that of a pass that only reads, for which the second-level cache is near enough.
constexpr uintptr_t kPrefetchAhead = 2048, kPrefetchAheadOfSums = 4096;

enum class Prefetch { to_write, to_read, to_sum };

template <Prefetch kPurpose>
EXTRAP_HD void prefetch(const void* from, size_t bytes) {
  // As integers: the last lines may lie past the end of the tensor.
  const uintptr_t first =
      reinterpret_cast<uintptr_t>(from) + (kPurpose == Prefetch::to_sum ? kPrefetchAheadOfSums : kPrefetchAhead);
  for (uintptr_t line = first; line < first + bytes; line += 64)
    __builtin_prefetch(reinterpret_cast<const void*>(line), kPurpose == Prefetch::to_write,
                       kPurpose == Prefetch::to_sum ? 2 : 3);
}

template <class P, class G, class A, int kBuffers>
EXTRAP_HD void prefetch(const Block<P, G, A, kBuffers>& b) {
  prefetch<Prefetch::to_write>(b.base, kBlock * sizeof(A));
  for (int k = 0; k < kBuffers; ++k) prefetch<Prefetch::to_write>(b.buffers[k], kBlock * sizeof(A));
  prefetch<Prefetch::to_read>(b.gradient, kBlock * sizeof(G));
  if (b.local) prefetch<Prefetch::to_read>(b.local, kBlock * sizeof(G));
}

// In vectors of the arithmetic type; a 16-bit format has half as many bytes in one.
template <class T, class V>
EXTRAP_HD V load(const T* from) {
  using Packed = typename Storage<T>::Packed;
  return Storage<T>::unpack(load_bytes<Packed>(from));
}

EXTRAP_HD DoubleVector widen(const float* from) {
  return __builtin_convertvector(load_bytes<HalfFloatVector>(from), DoubleVector);
}
EXTRAP_HD void load_noise(const float* from, FloatVector& n) { n = load_bytes<FloatVector>(from); }
EXTRAP_HD void load_noise(const float* from, DoubleVector& n) { n = widen(from); }

// From one counter in each lane to memory order. Each 128-bit part is a 4x4 matrix that is transposed; the counters
// were dealt out to the lanes such that the parts then follow each other.
EXTRAP_HD void store_in_order(const NoiseLanes<FloatVector>& n, float* to) {
  const FloatVector low02 = interleave_low(n.lane[0], n.lane[2]), high02 = interleave_high(n.lane[0], n.lane[2]);
  const FloatVector low13 = interleave_low(n.lane[1], n.lane[3]), high13 = interleave_high(n.lane[1], n.lane[3]);
  const FloatVector ordered[4] = {interleave_low(low02, low13), interleave_high(low02, low13),
                                  interleave_low(high02, high13), interleave_high(high02, high13)};
  memcpy(to, ordered, sizeof ordered);
}

// Lane 4p + j holds the counter whose elements end up in vector j, part p.
struct CounterOrder {
  uint32_t offset[kFloats];
  constexpr CounterOrder() : offset() {
    for (int lane = 0; lane < kFloats; ++lane)
      offset[lane] = static_cast<uint32_t>(lane % 4 * (kFloats / 4) + lane / 4);
  }
};
constexpr CounterOrder kCounterOrder;

// Noise of the kBlock elements from `position`, a multiple of 4.
EXTRAP_HD void fill_noise(Noise kind, uint64_t key, uint32_t index, double step, int64_t position, float* to) {
  const uint64_t first = static_cast<uint64_t>(position) >> 2;
  const WordVector offset = load_bytes<WordVector>(kCounterOrder.offset);
  const WordVector low = offset + static_cast<uint32_t>(first);
  // A comparison gives -1 in the lanes where the sum wrapped.
  const WordVector high = static_cast<uint32_t>(first >> 32) - reinterpret_cast<WordVector>(low < offset);
  const PhiloxWords<SplitWords> random = philox4x32<SplitWords>(
      {{split(low), split(high), split(WordVector{} + index), split(WordVector{} + static_cast<uint32_t>(step))}}, key);
  PhiloxWords<WordVector> words;
  for (int k = 0; k < 4; ++k) words.word[k] = join(random.word[k]);
  store_in_order(kind == Noise::uniform ? uniform_noise<FloatVector>(words) : gaussian_noise<FloatVector>(words), to);
}

// The same for elements whose positions may begin anywhere and have gaps: each run is cut out of whole blocks.
__attribute__((noinline)) void fill_shard_noise(const StepConfig& config, const TensorEntry& t, int64_t begin,
                                                float* to) {
  alignas(64) float block[kBlock];
  for (int64_t filled = 0; filled < kBlock;) {
    const int64_t first = position(t, begin + filled), skip = first % 4;
    fill_noise(config.noise, config.key, t.index, t.step, first - skip, block);
    int64_t count = run_left(t, begin + filled);
    if (count > kBlock - skip) count = kBlock - skip;
    if (count > kBlock - filled) count = kBlock - filled;
    memcpy(to + filled, block + skip, static_cast<size_t>(count) * sizeof(float));
    filled += count;
  }
}

// Noise of the kBlock elements from element `begin` of a tensor, which is a multiple of 4.
EXTRAP_HD void fill_noise(const StepConfig& config, const TensorEntry& t, int64_t begin, float* to) {
  if (t.run >= t.numel && t.offset % 4 == 0)
    fill_noise(config.noise, config.key, t.index, t.step, t.offset + begin, to);
  else
    fill_shard_noise(config, t, begin, to);
}

// noise_std * s for elements from `begin`, where s is the rms of each element's row.
template <class A>
EXTRAP_HD void fill_amplitude(const TensorEntry& t, A noise_std, int64_t begin, A* to) {
  for (int i = 0; i < kBlock;) {
    const int64_t element = begin + i;
    const int64_t row = (element / t.row_stride) % t.rows;
    const int64_t left = t.row_stride - element % t.row_stride;
    const int64_t run = left < kBlock - i ? left : kBlock - i;
    const A amplitude = static_cast<A>(t.rms[row]) * noise_std;
    for (int64_t end = i + run; i < end; ++i) to[i] = amplitude;
  }
}

template <class Rule, class P, class G, class A, bool kNoise>
EXTRAP_HD void step_block(const StepConfig& config, const StepConstants<A>& c, const Rule& rule, const TensorEntry& t,
                          int64_t begin, const Block<P, G, A, Rule::kBuffers>& b, bool streaming) {
  using V = typename VectorOf<A>::type;
  constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(A));
  alignas(64) float noise[kNoise ? kBlock : 1];
  alignas(64) A amplitude[kNoise ? kBlock : 1];
  if constexpr (kNoise) {
    fill_noise(config, t, begin, noise);
    if (t.rms) fill_amplitude(t, c.noise_std, begin, amplitude);
  }
  EXTRAP_UNROLL
  for (int i = 0; i < kBlock; i += kLanes) {
    V x = load<A, V>(b.base + i);
    if (!config.correct) x = adopted_base(x, Storage<P>::unpack(Storage<P>::pack(x)), load<P, V>(b.y + i));
    V buffers[Rule::kBuffers > 0 ? Rule::kBuffers : 1];
    for (int k = 0; k < Rule::kBuffers; ++k) buffers[k] = load<A, V>(b.buffers[k] + i);
    const V g = prepared_gradient(c, load<G, V>(b.gradient + i), x);
    const V l = b.local ? prepared_gradient(c, load<G, V>(b.local + i), x) : g;
    V y;
    if (config.correct) {
      y = corrected_step(rule, c, g, l, x, buffers);
      for (int k = 0; k < Rule::kBuffers; ++k) memcpy(b.buffers[k] + i, &buffers[k], sizeof x);
    } else {
      y = x - rule.extragradient_direction(g, l, buffers) * c.extrap_lr;
    }
    memcpy(b.base + i, &x, sizeof x);
    if constexpr (kNoise) {
      V n, s = V{} + c.noise_std;
      load_noise(noise + i, n);
      if (c.gradient_noise) s = (l < A(0) ? -l : l) * c.noise_std;
      if (t.rms) s = load<A, V>(amplitude + i);
      y = y + n * s;
    }
    const auto packed = Storage<P>::pack(y);
    if (streaming)
      store_streaming(b.y + i, packed);
    else
      memcpy(b.y + i, &packed, sizeof packed);
  }
}

// The last elements of a tensor, fewer than a block: a padded copy, so that no byte outside is touched.
template <class P, class G, class A, int kBuffers>
struct PaddedBlock {
  P y[kBlock] = {};
  A base[kBlock] = {}, buffers[kBuffers > 0 ? kBuffers : 1][kBlock] = {};
  G gradient[kBlock] = {}, local[kBlock] = {};
  Block<P, G, A, kBuffers> original, block;
  size_t count;

  PaddedBlock(const Block<P, G, A, kBuffers>& b, size_t n, bool with_y) : original(b), block(b), count(n) {
    if (with_y) memcpy(y, b.y, count * sizeof(P));
    memcpy(base, b.base, count * sizeof(A));
    memcpy(gradient, b.gradient, count * sizeof(G));
    if (b.local) memcpy(local, b.local, count * sizeof(G));
    block.y = y;
    block.base = base;
    block.gradient = gradient;
    block.local = b.local ? local : nullptr;
    for (int k = 0; k < kBuffers; ++k) {
      memcpy(buffers[k], b.buffers[k], count * sizeof(A));
      block.buffers[k] = buffers[k];
    }
  }

  void store() const {
    memcpy(original.y, y, count * sizeof(P));
    memcpy(original.base, base, count * sizeof(A));
    for (int k = 0; k < kBuffers; ++k) memcpy(original.buffers[k], buffers[k], count * sizeof(A));
  }
};

// Elements of y before the first that is aligned to the vectors that bypass the caches; -1 where none is.
template <class P, class A>
EXTRAP_HD int64_t until_aligned(const TensorEntry& t) {
  constexpr uintptr_t kAlignment = kVectorBytes / sizeof(A) * sizeof(P);
  const uintptr_t bytes = -reinterpret_cast<uintptr_t>(t.y) % kAlignment;
  return bytes % sizeof(P) == 0 ? static_cast<int64_t>(bytes / sizeof(P)) : -1;
}

// Fewer elements than a block.
template <class Rule, class P, class G, class A, bool kNoise>
__attribute__((noinline)) void step_part(const StepConfig& config, const StepConstants<A>& c, const Rule& rule,
                                         const TensorEntry& t, int64_t begin, int64_t end) {
  PaddedBlock<P, G, A, Rule::kBuffers> part({t, begin}, static_cast<size_t>(end - begin), !config.correct);
  step_block<Rule, P, G, A, kNoise>(config, c, rule, t, begin, part.block, false);
  part.store();
}

// `shift`: how far the chunks of this tensor are moved, but for the beginning of the first and the end of the last one.
template <class Rule, class P, class G, class A, bool kNoise>
EXTRAP_HD void step_chunk(const StepConfig& config, const StepConstants<A>& c, const Rule& rule, const TensorEntry& t,
                          const Chunk& chunk, int64_t shift, bool streaming) {
  constexpr int64_t kPrefetchElements = kPrefetchAhead / sizeof(A);
  const int64_t shifted_end = chunk.begin + chunk.count + shift;
  const int64_t end = shifted_end < t.numel ? shifted_end : t.numel;
  int64_t i = chunk.begin + shift;
  if (chunk.begin == 0 && shift > 0) step_part<Rule, P, G, A, kNoise>(config, c, rule, t, 0, shift < end ? shift : end);
  for (; i + kBlock <= end; i += kBlock) {
    const Block<P, G, A, Rule::kBuffers> block(t, i);
    // Not past the end: small tensors would fetch what nobody needs.
    if (i + kPrefetchElements < t.numel) prefetch(block);
    step_block<Rule, P, G, A, kNoise>(config, c, rule, t, i, block, streaming);
  }
  if (streaming) finish_streaming();
  if (i < end) step_part<Rule, P, G, A, kNoise>(config, c, rule, t, i, end);
}

template <class Rule, class P, class G, class A>
void step(const StepConfig& config, const TensorEntry* tensors, const Chunk* chunks, int64_t count, bool streaming) {
  const StepConstants<A> c(config, Rule::kOwnDecay);
  const TensorEntry* last = tensors + chunks[0].tensor;
  Rule rule(config, *last);
  for (const Chunk* chunk = chunks; chunk < chunks + count; ++chunk) {
    const TensorEntry& t = tensors[chunk->tensor];
    // All that a rule takes from a tensor: its powers of beta cost as much as stepping a small one.
    if (t.step != last->step || t.trust != last->trust) rule = Rule(config, t);
    last = &t;
    const int64_t unaligned = streaming ? until_aligned<P, A>(t) : -1;
    // Noise comes in blocks that begin where the tensor does: there, an unaligned y takes its way through the caches.
    if (config.noise != Noise::none && (config.noise_scale != NoiseScale::filter || t.rms))
      step_chunk<Rule, P, G, A, true>(config, c, rule, t, *chunk, 0, unaligned == 0);
    else
      step_chunk<Rule, P, G, A, false>(config, c, rule, t, *chunk, unaligned > 0 ? unaligned : 0, unaligned >= 0);
  }
}

// Squares are summed in 16 lanes by position, whatever the width of the vectors.
struct SquareSum {
  static constexpr int kLanes = 16;
  double lanes[kLanes] = {};

  template <class A>
  EXTRAP_HD void add(const A* x) {
    for (int k = 0; k < kLanes; ++k) lanes[k] += static_cast<double>(x[k]) * static_cast<double>(x[k]);
  }

  EXTRAP_HD double total() const {
    double sum = 0;
    for (double lane : lanes) sum += lane;
    return sum;
  }
};

// What the norm is taken of, for the kBlock elements of a block.
template <class Rule, class P, class G, class A>
EXTRAP_HD void norm_block(const StepConstants<A>& c, const Rule& rule, const Block<P, G, A, Rule::kBuffers>& b,
                          A* out) {
  using V = typename VectorOf<A>::type;
  constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(A));
  for (int i = 0; i < kBlock; i += kLanes) {
    V u = unscaled_gradient(c, load<G, V>(b.gradient + i));
    if constexpr (Rule::kNorm == Norm::update) {
      V buffers[Rule::kBuffers], z;
      for (int k = 0; k < Rule::kBuffers; ++k) buffers[k] = load<A, V>(b.buffers[k] + i);
      const V g = u, x = load<A, V>(b.base + i);
      rule.direction(g, g, x, buffers, u, z);
    }
    memcpy(out + i, &u, sizeof u);
  }
}

template <class Rule, class P, class G, class A>
NormSums norm(const StepConfig& config, const TensorEntry& t, int64_t begin, int64_t count) {
  const StepConstants<A> c(config, Rule::kOwnDecay);
  const Rule rule(config, t);
  SquareSum of_x, of_scaled;
  alignas(64) A scaled[kBlock];
  const auto add = [&](const Block<P, G, A, Rule::kBuffers>& b, int64_t in_tensor) {
    norm_block<Rule, P, G, A>(c, rule, b, scaled);
    for (int64_t k = in_tensor; k < kBlock; ++k) scaled[k] = 0;
    for (int k = 0; k < kBlock; k += SquareSum::kLanes) {
      of_x.add(b.base + k);
      of_scaled.add(scaled + k);
    }
  };
  int64_t i = begin;
  for (; i + kBlock <= begin + count; i += kBlock) {
    const Block<P, G, A, Rule::kBuffers> block(t, i);
    prefetch<Prefetch::to_sum>(block.base, kBlock * sizeof(A));
    if constexpr (Rule::kNorm == Norm::update)
      for (const A* buffer : block.buffers) prefetch<Prefetch::to_sum>(buffer, kBlock * sizeof(A));
    prefetch<Prefetch::to_sum>(block.gradient, kBlock * sizeof(G));
    add(block, kBlock);
  }
  if (i < begin + count) {
    const auto left = begin + count - i;
    add(PaddedBlock<P, G, A, Rule::kBuffers>({t, i}, static_cast<size_t>(left), false).block, left);
  }
  return {of_x.total(), of_scaled.total()};
}

template <class Rule>
double trust(const StepConfig& config, double norm_x, double norm) {
  return Rule::trust_ratio(config, norm_x, norm);
}

template <class Rule, class P, class G, class A>
RuleKernels kernels_of() {
  if constexpr (Rule::kNorm == Norm::none)
    return {step<Rule, P, G, A>, nullptr, nullptr};
  else
    return {step<Rule, P, G, A>, norm<Rule, P, G, A>, trust<Rule>};
}

template <template <class> class Rule>
RuleKernels kernels_for(DType param, bool gradient_like_param) {
  switch (param) {
    case DType::float32:
      return kernels_of<Rule<float>, float, float, float>();
    case DType::float64:
      return kernels_of<Rule<double>, double, double, double>();
    case DType::bfloat16:
      return gradient_like_param ? kernels_of<Rule<float>, BFloat16, BFloat16, float>()
                                 : kernels_of<Rule<float>, BFloat16, float, float>();
    case DType::float16:
      return gradient_like_param ? kernels_of<Rule<float>, Float16, Float16, float>()
                                 : kernels_of<Rule<float>, Float16, float, float>();
  }
  return {};
}

RuleKernels find_rule(const char* name, int buffers, DType param, bool gradient_like_param) {
#define EXTRAP_TRY_RULE(Rule, rule_name)                                \
  if (strcmp(name, rule_name) == 0 && buffers == Rule<float>::kBuffers) \
    return kernels_for<Rule>(param, gradient_like_param);
  EXTRAP_FOR_EACH_RULE(EXTRAP_TRY_RULE)
#undef EXTRAP_TRY_RULE
  return {};
}

template <class T, class A>
double square_sum(const void* values, int64_t count) {
  using V = typename VectorOf<A>::type;
  constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(A));
  static_assert(kBlock % SquareSum::kLanes == 0);
  const T* x = static_cast<const T*>(values);
  SquareSum sum;
  alignas(64) A out[kBlock];
  const auto add = [&](const T* from) {
    for (int k = 0; k < kBlock; k += kLanes) {
      const V v = load<T, V>(from + k);
      memcpy(out + k, &v, sizeof v);
    }
    for (int k = 0; k < kBlock; k += SquareSum::kLanes) sum.add(out + k);
  };
  int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    prefetch<Prefetch::to_sum>(x + i, kBlock * sizeof(T));
    add(x + i);
  }
  if (i < count) {
    T padded[kBlock] = {};
    memcpy(padded, x + i, static_cast<size_t>(count - i) * sizeof(T));
    add(padded);
  }
  return sum.total();
}

SquareSumKernel find_square_sum(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return square_sum<float, float>;
    case DType::float64:
      return square_sum<double, double>;
    case DType::bfloat16:
      return square_sum<BFloat16, float>;
    case DType::float16:
      return square_sum<Float16, float>;
  }
  return nullptr;
}

}  // namespace

const CpuKernels kernels = {find_rule, find_square_sum};

}  // namespace EXTRAP_ISA
}  // namespace extrap
