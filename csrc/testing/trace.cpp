#include "testing/trace.h"

#include <cstring>
#include <stdexcept>

#include "core/dispatch.h"
#include "core/layout.h"
#include "core/noise.h"
#include "core/step.h"

namespace extrap::testing {
namespace {

constexpr const char* kDTypeNames[] = {"float32", "float64", "bfloat16", "float16"};

bool is_named(DType dtype, const std::string& name) { return name == kDTypeNames[static_cast<size_t>(dtype)]; }

// Noise is float, whatever the arithmetic.
Number<float> in_arithmetic(Number<float> n, float) { return n; }
Number<double> in_arithmetic(Number<float> n, double) { return Number<double>::of("to_float64", n); }

template <template <class> class RuleOf, class P, class G>
class TracedStep {
  using A = typename Format<P>::Value;
  using V = Number<A>;
  using Rule = RuleOf<A>;
  static constexpr int kBuffers = Rule::Buffers::kCount;

 public:
  static void trace(const StepConfig& config, const StepCase& step, Recorder& recorder) {
    const StepConstants<A> c(config, Rule::kOwnDecay);
    TensorEntry t{};
    t.step = step.step;
    t.trust = 1;
    V x = V::input("base"), l, buffers[kMaxBuffers];
    load(buffers);
    if constexpr (kRecoversBase<Rule, TensorTypes<P, G, FullState<A>>>)
      if (step.recovers && step.inner_lr != 0) x = recovered_base(x, buffers[0], static_cast<A>(step.inner_lr));
    // In an update, a parameter in the format of the base is the base itself.
    if (c.extrapolates || (c.adopts && !std::is_same_v<P, A>))
      x = adopted_base(x, Format<P>::template decode<V>(Format<P>::encode(x)), loaded<P>("param"));
    if constexpr (Rule::kNorm != Norm::none) {
      if (config.layer_adaptation) {
        recorder.output("normed_base", x);
        recorder.output("normed", normed(c, Rule(config, t), x));
        t.trust = Rule::trust_ratio(config, step.norm_x, step.norm);
      }
    }
    const Rule rule(config, t);
    const V g = prepared_gradient(c, loaded<G>("gradient"), x);
    l = step.has_local ? prepared_gradient(c, loaded<G>("local"), x) : g;
    if constexpr (Rule::kNorm == Norm::none) {
      // With a norm that takes x, the base is stored.
      if (is_measured(c) && (c.extrapolation == Extrapolation::momentum || !step.recovers)) {
        const V along =
            c.extrapolation == Extrapolation::momentum ? buffers[0] : direction_to_come(rule, c, g, l, x, buffers);
        recorder.output("measured", measured(c.adaptive, along, x));
      }
    }
    load(buffers);
    V y = c.extrapolates ? extragradient_step(rule, c, g, l, x, buffers)
                         : corrected_step(rule, c, g, l, x, buffers, [](V v) { return v; });
    if (config.noise != Noise::none && !c.extrapolates)
      y = y + in_arithmetic(Number<float>::input("noise"), A()) * amplitude(config, c, l, step.rms);
    recorder.output("param", Format<P>::encode(y));
    recorder.output("base", step.recovers ? y : x);
    for (int k = 0; k < kBuffers; ++k) recorder.output("buffer" + std::to_string(k), buffers[k]);
  }

 private:
  // Whether the norm may be taken of what this step computes to extrapolate along.
  static bool is_measured(const StepConstants<A>& c) {
    return c.extrapolation != Extrapolation::none && (c.extrapolation != Extrapolation::momentum || kBuffers > 0) &&
           (c.extrapolation == Extrapolation::extragradient) == c.extrapolates;
  }

  template <class T>
  static V loaded(const char* name) {
    return Format<T>::template decode<V>(Format<T>::template Stored<V>::input(name));
  }

  static void load(V* buffers) {
    for (int k = 0; k < kBuffers; ++k) buffers[k] = V::input("buffer" + std::to_string(k));
  }

  static V normed(const StepConstants<A>& c, const Rule& rule, V x) {
    V u = unscaled_gradient(c, loaded<G>("gradient")), z, buffers[kMaxBuffers];
    if constexpr (Rule::kNorm == Norm::update) {
      load(buffers);
      const V g = u;
      rule.direction(g, g, x, buffers, u, z);
    }
    return u;
  }

  static V amplitude(const StepConfig& config, const StepConstants<A>& c, V l, double rms) {
    if (scaled_by_rms(config)) return V(static_cast<A>(rms) * c.noise_std);
    return c.gradient_noise ? gradient_amplitude(c, l) : V(c.noise_std);
  }
};

template <class Word>
PhiloxWords<Word> word_inputs() {
  return {{Word::input("word0"), Word::input("word1"), Word::input("word2"), Word::input("word3")}};
}

}  // namespace

std::vector<Path> traced_step(const StepConfig& config, const StepCase& step) {
  auto all = visit_rule<std::vector<Path>>(step.rule.c_str(), step.buffers, [&](auto rule) {
    std::vector<Path> of_rule;
    for_each_pair([&](auto p, auto g) {
      using P = typename decltype(p)::Type;
      using G = typename decltype(g)::Type;
      if (!is_named(Format<P>::kDType, step.param) || !is_named(Format<G>::kDType, step.gradient)) return;
      of_rule = Recorder::paths(
          [&](Recorder& recorder) { TracedStep<decltype(rule)::template Of, P, G>::trace(config, step, recorder); });
    });
    return of_rule;
  });
  if (all.empty())
    throw std::invalid_argument("no kernels for rule " + step.rule + " with " + std::to_string(step.buffers) +
                                " buffers, " + step.param + " parameters and " + step.gradient + " gradients");
  return all;
}

std::vector<Path> traced_words(const std::string& what, const StepConfig& config, uint32_t index, double step) {
  const auto body = [&](Recorder& recorder) {
    if (what == "philox") {
      const auto words = philox4x32<Word>(word_inputs<Word>(), config.key);
      for (int k = 0; k < 4; ++k) recorder.output("word" + std::to_string(k), words.word[k]);
    } else if (what == "noise") {
      const auto noise = noise_of<Number<float>>(config.noise, Word::input("word0"));
      recorder.output("noise0", noise.even);
      recorder.output("noise1", noise.odd);
    } else if (what == "bits") {
      const auto key = RandomKey::of(config.key, index, step);
      recorder.output("word0", key.bits(Word::input("word0"), Word::input("word1")));
    } else if (what == "stochastic") {
      recorder.output("half", Format<BFloat16>::encode(Number<float>::input("value"), Word::input("word0")));
    } else if (what == "rounded") {
      recorder.output("value", Format<Float24>::rounded(Number<float>::input("value"), Word::input("word0")));
    } else if (what == "split") {
      recorder.output("word0", Format<Float24>::high(Word::input("word0")));
      recorder.output("word1", Format<Float24>::low(Word::input("word0")));
    } else if (what == "join") {
      recorder.output("value", Format<Float24>::join<Number<float>>(Word::input("word0"), Word::input("word1")));
    } else {
      throw std::invalid_argument("nothing to trace is called " + what);
    }
  };
  return Recorder::paths(body);
}

}  // namespace extrap::testing
