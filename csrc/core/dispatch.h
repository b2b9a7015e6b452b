// From what is known at run time, a rule's name and dtypes, to the types that kernels are compiled for.
#pragma once

#include <cstring>

#include "core/layout.h"
#include "core/rule.h"
#include "core/rules.h"

namespace extrap {
inline namespace EXTRAP_ISA {

// Stands for a rule or a type in calls of a visitor.
template <template <class> class Rule>
struct RuleTag {
  template <class A>
  using Of = Rule<A>;
  using Facts = Rule<float>;  // what does not depend on A: its buffers and norm
};

template <class T>
struct TypeTag {
  using Type = T;
};

template <template <class> class... Rules, class Visit>
void for_each_variant(RuleVariants<Rules...>, const Visit& visit) {
  (visit(RuleTag<Rules>()), ...);
}

// visit(name, RuleTag) for each variant of each rule.
template <class Visit>
void for_each_rule(const Visit& visit) {
#define EXTRAP_VISIT_RULE(rule) for_each_variant(rules::rule(), [&](auto tag) { visit(#rule, tag); });
  EXTRAP_FOR_EACH_RULE(EXTRAP_VISIT_RULE)
#undef EXTRAP_VISIT_RULE
}

// visit(RuleTag) of the variant that has so many buffers; a Result() where there is none.
template <class Result, class Visit>
Result visit_rule(const char* name, int buffers, const Visit& visit) {
  Result result{};
  for_each_rule([&](const char* other, auto tag) {
    if (strcmp(name, other) == 0 && buffers == decltype(tag)::Facts::Buffers::kCount) result = visit(tag);
  });
  return result;
}

// visit(TypeTag<P>, TypeTag<G>) for each pair of formats of parameters and gradients.
template <class Visit>
void for_each_pair(const Visit& visit) {
#define EXTRAP_VISIT_PAIR(P, G) visit(TypeTag<P>(), TypeTag<G>());
  EXTRAP_FOR_EACH_PAIR(EXTRAP_VISIT_PAIR)
#undef EXTRAP_VISIT_PAIR
}

// The same for the pair with these formats; a Result() where there is none.
template <class Result, class Visit>
Result visit_pair(const TensorFormats& formats, const Visit& visit) {
  Result result{};
  for_each_pair([&](auto p, auto g) {
    using P = typename decltype(p)::Type;
    using G = typename decltype(g)::Type;
    if (formats.param == Format<P>::kDType && formats.gradient == Format<G>::kDType) result = visit(p, g);
  });
  return result;
}

// visit(TypeTag<TensorTypes>) of the types with these formats, of parameters in P with gradients in G; a Result() where
// there are none. The state is in the arithmetic type, or in formats of fewer bits, as that of single precision may be.
template <class Result, class P, class G, bool kHasBuffers, class Visit>
Result visit_state(const TensorFormats& formats, const Visit& visit) {
  using A = typename Format<P>::Value;
  Result result{};
  const auto visit_layout = [&](auto types) {
    if (decltype(types)::Type::kFormats == formats) result = visit(types);
  };
  visit_layout(TypeTag<TensorTypes<P, G, FullState<A>>>());
  if constexpr (kHasBuffers && sizeof(A) == sizeof(float)) {
#define EXTRAP_VISIT_MOMENTS(T) visit_layout(TypeTag<TensorTypes<P, G, CompactState<P, T>>>());
    EXTRAP_FOR_EACH_MOMENT_FORMAT(EXTRAP_VISIT_MOMENTS)
#undef EXTRAP_VISIT_MOMENTS
  } else if constexpr (sizeof(P) == 2) {
    visit_layout(TypeTag<TensorTypes<P, G, CompactState<P, A>>>());
  }
  return result;
}

// visit(TypeTag<T>) of the format of a dtype.
template <class Result, class Visit>
Result visit_format(DType dtype, const Visit& visit) {
  Result result{};
#define EXTRAP_VISIT_FORMAT(T) \
  if (Format<T>::kDType == dtype) result = visit(TypeTag<T>());
  EXTRAP_FOR_EACH_FORMAT(EXTRAP_VISIT_FORMAT)
#undef EXTRAP_VISIT_FORMAT
  return result;
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
