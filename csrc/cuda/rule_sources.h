// What sums of squares are taken of that depends on a rule: what it scales by norms, and what is extrapolated along.
#pragma once

#include <type_traits>

#include "core/layout.h"
#include "core/step.h"
#include "core/table.h"
#include "cuda/block_tile.h"
#include "cuda/sum_kernel.h"
#include "cuda/tile.h"

namespace extrap::cuda {

// The buffers of a tensor that a rule reads: of its own ones, the first kCount.
template <template <class> class RuleOf, class Types, int kCount>
struct RuleSource {
  using A = typename Types::A;
  using P = typename Types::Param;
  using G = typename Types::Gradient;
  using Base = typename Types::Base;
  using Buffer = typename Types::Signed;
  static_assert(std::is_same_v<Buffer, typename Types::Unsigned>,
                "buffers of several formats are yet to be told apart");
  using Rule = RuleOf<A>;
  static constexpr int kBuffers = kCount;
  static constexpr bool kReadsAhead = false;
  static constexpr int kPart = kWidestAccess / static_cast<int>(sizeof(A));
  PointerTo<Base> x;
  const P* y;  // null where it is x, or does not count
  const G* gradient;
  const Buffer* buffers[kBuffers > 0 ? kBuffers : 1];
  const uint8_t* exponents[kBuffers > 0 ? kBuffers : 1];
  StepConstants<A> constants;
  Rule rule;

  static EXTRAP_HD TensorEntry entry(const LaunchTable& table, int i) {
    TensorEntry t{};
    t.step = static_cast<double>(*table.pointer<const float>(kStep, i)) + 1;
    t.trust = 1;
    return t;
  }

  EXTRAP_HD RuleSource(const LaunchTable& table, int i)
      : x(base_pointer<Base>(table, i)),
        gradient(table.pointer<const G>(kGradient, i)),
        constants(table.resolved_config(), Rule::kOwnDecay),
        rule(table.config, entry(table, i)) {
    y = table.pointer<const P>(kY, i);
    EXTRAP_UNROLL
    for (int k = 0; k < kBuffers; ++k) {
      buffers[k] = table.pointer<const Buffer>(static_cast<Column>(kBuffer0 + k), i);
      exponents[k] = table.pointer<const uint8_t>(static_cast<Column>(kExponents0 + k), i);
    }
  }

  EXTRAP_HD bool aligned() const {
    bool all = Tile<Base, kPart>::aligned(x) && Tile<P, kPart>::aligned(y) && Tile<G, kPart>::aligned(gradient);
    for (int b = 0; b < kBuffers; ++b) all = all && Tile<Buffer, kPart>::aligned(buffers[b]);
    return all;
  }

  template <class Place>
  EXTRAP_HD void load_x(const Part<kPart>& part, const Place& place, Tile<Base, kPart>& xs) const {
    xs.load(x, part, place);
    if (!y) return;
    Tile<P, kPart> ys;
    ys.load(y, part, place);
    EXTRAP_UNROLL
    for (int k = 0; k < kPart; ++k)
      xs.set(k, adopted_base(xs[k], Format<P>::template decode<A>(Format<P>::encode(xs[k])), ys[k]));
  }

  template <class Place>
  EXTRAP_HD void load_buffer(int b, const Part<kPart>& part, const Place& place, Tile<Buffer, kPart>& moments,
                             Exponents<kPart>& e) const {
    moments.load(buffers[b], part, place);
    if constexpr (kInBlocks<Buffer>) e.load(exponents[b], part, place);
  }

  // Number k of a part of buffer b.
  static EXTRAP_HD A moment(int b, const Tile<Buffer, kPart>& stored, const Exponents<kPart>& e, int k) {
    if constexpr (kInBlocks<Buffer>)
      return decoded(Rule::Buffers::is_signed(b), stored, BlockFactor(e.of[k]), k);
    else
      return stored[k];
  }
};

// How many buffers there are to what a rule scales.
template <class Rule>
constexpr int kScaledBuffers = Rule::kNorm == Norm::update ? Rule::Buffers::kCount : 0;

// The squares of x and of what the rule scales: the gradient or the update.
template <template <class> class RuleOf, class Types>
struct NormSource : RuleSource<RuleOf, Types, kScaledBuffers<RuleOf<float>>> {
  using Source = RuleSource<RuleOf, Types, kScaledBuffers<RuleOf<float>>>;
  using Source::kBuffers;
  using Source::kPart;
  using Source::Source;
  using typename Source::A;
  using typename Source::Rule;
  static constexpr int kValues = 2;

  template <class Place>
  EXTRAP_HD void add(const Part<kPart>& part, const Place& place, double (&sums)[kValues][kPart]) const {
    Tile<typename Source::Base, kPart> xs;
    Tile<typename Source::Buffer, kPart> moments[kBuffers > 0 ? kBuffers : 1];
    Exponents<kPart> es[kBuffers > 0 ? kBuffers : 1];
    Tile<typename Source::G, kPart> gs;
    this->load_x(part, place, xs);
    gs.load(this->gradient, part, place);
    EXTRAP_UNROLL
    for (int b = 0; b < kBuffers; ++b) this->load_buffer(b, part, place, moments[b], es[b]);
    // One by one: as a vector, which is how a step takes a part, LARS's sums took 8% longer on an H200, and LAMB's 3%.
    EXTRAP_UNROLL
    for (int k = 0; k < kPart; ++k) {
      if (!part.has(k)) break;
      A u = unscaled_gradient(this->constants, gs[k]);
      if constexpr (Rule::kNorm == Norm::update) {
        A own[kBuffers], z;
        EXTRAP_UNROLL
        for (int b = 0; b < kBuffers; ++b) own[b] = Source::moment(b, moments[b], es[b], k);
        const A g = u;
        this->rule.direction(g, g, xs[k], own, u, z);
      }
      add_square(xs[k], sums[0][k]);
      add_square(u, sums[1][k]);
      EXTRAP_REREAD_MEMORY();
    }
  }
};

// The squares of what the step will extrapolate along, in its units: of rules without norms all directions, and of
// every rule the momentum in blocks, as it is before the step. (As it is and in other formats, that is a BufferSource.)
template <template <class> class RuleOf, class Types>
struct DirectionSource : RuleSource<RuleOf, Types, RuleOf<float>::Buffers::kCount> {
  using Source = RuleSource<RuleOf, Types, RuleOf<float>::Buffers::kCount>;
  using Source::kBuffers;
  using Source::kPart;
  using typename Source::A;
  using typename Source::Buffer;
  using typename Source::G;
  using typename Source::Rule;
  static constexpr int kValues = 1;
  static constexpr bool kExists = Rule::kNorm == Norm::none || kInBlocks<Buffer>;
  const G* local;  // null where it is the gradient

  EXTRAP_HD DirectionSource(const LaunchTable& table, int i)
      : Source(table, i), local(table.pointer<const G>(kLocal, i)) {}

  EXTRAP_HD bool aligned() const { return Source::aligned() && Tile<G, kPart>::aligned(local); }

  template <class Place>
  EXTRAP_HD void add(const Part<kPart>& part, const Place& place, double (&sums)[kValues][kPart]) const {
    const Extrapolation along = this->constants.extrapolation;
    if (along == Extrapolation::momentum) {
      if constexpr (kBuffers > 0) add_momentum(part, place, sums);
    } else if (along != Extrapolation::none) {
      if constexpr (Rule::kNorm == Norm::none) add_direction(part, place, sums);
    }
  }

 private:
  template <class Place>
  EXTRAP_HD void add_momentum(const Part<kPart>& part, const Place& place, double (&sums)[kValues][kPart]) const {
    const StepConstants<A>& c = this->constants;
    Tile<typename Source::Base, kPart> xs;
    Tile<Buffer, kPart> moments;
    Exponents<kPart> e;
    xs.clear();
    if (reads_base(c)) this->load_x(part, place, xs);
    this->load_buffer(0, part, place, moments, e);
    EXTRAP_UNROLL
    for (int k = 0; k < kPart; ++k)
      if (part.has(k)) add_square(measured(c.adaptive, Source::moment(0, moments, e, k), xs[k]), sums[0][k]);
  }

  template <class Place>
  EXTRAP_HD void add_direction(const Part<kPart>& part, const Place& place, double (&sums)[kValues][kPart]) const {
    const StepConstants<A>& c = this->constants;
    Tile<typename Source::Base, kPart> xs;
    Tile<Buffer, kPart> moments[kBuffers > 0 ? kBuffers : 1];
    Exponents<kPart> es[kBuffers > 0 ? kBuffers : 1];
    Tile<G, kPart> gs, ls;
    xs.clear();
    if (reads_base(c)) this->load_x(part, place, xs);
    gs.load(this->gradient, part, place);
    ls = gs;
    if (local) ls.load(local, part, place);
    EXTRAP_UNROLL
    for (int b = 0; b < kBuffers; ++b) {
      moments[b].packet = {};
      es[b].set_all(kSmallestExponent);
      if (reads_buffer<Rule>(c, b)) this->load_buffer(b, part, place, moments[b], es[b]);
    }
    EXTRAP_UNROLL
    for (int k = 0; k < kPart; ++k) {
      if (!part.has(k)) break;
      A own[kBuffers > 0 ? kBuffers : 1];
      EXTRAP_UNROLL
      for (int b = 0; b < kBuffers; ++b) own[b] = Source::moment(b, moments[b], es[b], k);
      const A g = prepared_gradient(c, gs[k], xs[k]), l = prepared_gradient(c, ls[k], xs[k]);
      add_square(measured(c.adaptive, direction_to_come(this->rule, c, g, l, xs[k], own), xs[k]), sums[0][k]);
      EXTRAP_REREAD_MEMORY();
    }
  }
};

}  // namespace extrap::cuda
