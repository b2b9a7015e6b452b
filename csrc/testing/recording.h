// Lane types that record the operations which the templates of csrc/core carry out on them, in place of carrying them
// out.
//
// A comparison of recorded numbers has no value: where code branches on one, or selects by it, the code is run for both
// outcomes, and each run, with the outcomes that it assumed, is a path.
#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/ops.h"

namespace extrap::testing {

// The name of the operation, its operands by their place in the list, and what a constant or an input is.
using Operation = std::tuple<std::string, std::vector<int>, std::string>;

struct Path {
  std::vector<Operation> operations;
  std::vector<std::pair<int, bool>> decisions;
  std::map<std::string, int> outputs;
};

class Recorder {
 public:
  static Recorder& current() { return *current_; }

  // The same operation on the same operands has one place, so that code may ask for one comparison twice.
  int add(const char* name, std::vector<int> operands, std::string what = {}) {
    Operation operation(name, std::move(operands), std::move(what));
    const auto found = places_.emplace(operation, static_cast<int>(path_.operations.size()));
    if (found.second) path_.operations.push_back(std::move(operation));
    return found.first->second;
  }

  bool decide(int comparison) {
    for (const auto& decision : path_.decisions)
      if (decision.first == comparison) return decision.second;
    const size_t k = path_.decisions.size();
    path_.decisions.emplace_back(comparison, k < script_.size() ? script_[k] : true);
    return path_.decisions.back().second;
  }

  template <class Value>
  void output(const std::string& name, Value value) {
    path_.outputs[name] = value.place;
  }

  // Every path through `body`, which has no effects but on its recorder.
  template <class Body>
  static std::vector<Path> paths(const Body& body) {
    std::vector<Path> all;
    std::vector<bool> script;
    do {
      Recorder recorder;
      recorder.script_ = script;
      current_ = &recorder;
      body(recorder);
      script.clear();
      for (const auto& decision : recorder.path_.decisions) script.push_back(decision.second);
      while (!script.empty() && !script.back()) script.pop_back();
      if (!script.empty()) script.back() = false;
      all.push_back(std::move(recorder.path_));
    } while (!script.empty());
    current_ = nullptr;
    return all;
  }

 private:
  static inline thread_local Recorder* current_ = nullptr;
  std::vector<bool> script_;
  std::map<Operation, int> places_;
  Path path_;
};

// A kind of value; Self is its type.
template <class Self>
struct Recorded {
  int place;

  template <class... Operands>
  static Self of(const char* name, Operands... operands) {
    return at(Recorder::current().add(name, {operands.place...}));
  }
  static Self input(const std::string& name) { return at(Recorder::current().add("input", {}, name)); }
  static Self at(int place) {
    Self value;
    value.place = place;
    return value;
  }
};

struct Condition : Recorded<Condition> {
  explicit operator bool() const { return Recorder::current().decide(place); }
};

// A: float or double.
template <class A>
struct Number : Recorded<Number<A>> {
  Number(A constant = 0) {
    char digits[64];
    std::snprintf(digits, sizeof digits, "%a", static_cast<double>(constant));
    this->place = Recorder::current().add("number", {}, digits);
  }
  friend Number operator+(Number a, Number b) { return Number::of("add", a, b); }
  friend Number operator-(Number a, Number b) { return Number::of("sub", a, b); }
  friend Number operator*(Number a, Number b) { return Number::of("mul", a, b); }
  friend Number operator/(Number a, Number b) { return Number::of("div", a, b); }
  friend Number operator-(Number a) { return Number::of("neg", a); }
  friend Condition operator==(Number a, Number b) { return Condition::of("eq", a, b); }
  friend Condition operator!=(Number a, Number b) { return Condition::of("ne", a, b); }
  friend Condition operator<(Number a, Number b) { return Condition::of("lt", a, b); }
  friend Condition operator>(Number a, Number b) { return Condition::of("lt", b, a); }
  friend Condition operator<=(Number a, Number b) { return Condition::of("le", a, b); }
  friend Condition operator>=(Number a, Number b) { return Condition::of("le", b, a); }
};

// 32 bits, unsigned.
struct Word : Recorded<Word> {
  Word(uint32_t constant = 0) { place = Recorder::current().add("word", {}, std::to_string(constant)); }
  friend Word operator+(Word a, Word b) { return of("iadd", a, b); }
  friend Word operator-(Word a, Word b) { return of("isub", a, b); }
  friend Word operator*(Word a, Word b) { return of("imul", a, b); }
  friend Word operator^(Word a, Word b) { return of("xor", a, b); }
  friend Word operator&(Word a, Word b) { return of("and", a, b); }
  friend Word operator|(Word a, Word b) { return of("or", a, b); }
  friend Word operator<<(Word a, int bits) { return of("lshift", a, Word(static_cast<uint32_t>(bits))); }
  friend Word operator>>(Word a, int bits) { return of("rshift", a, Word(static_cast<uint32_t>(bits))); }
  friend Condition operator==(Word a, Word b) { return Condition::of("ieq", a, b); }
  friend Condition operator!=(Word a, Word b) { return Condition::of("ine", a, b); }
  friend Condition operator<(Word a, Word b) { return Condition::of("ilt", a, b); }
  friend Condition operator>(Word a, Word b) { return Condition::of("ilt", b, a); }
};

// A number in 16 bits as it lies in memory.
struct Half : Recorded<Half> {};

}  // namespace extrap::testing

namespace extrap {
inline namespace EXTRAP_ISA {

template <>
struct Ops<testing::Number<double>> {
  using Number = testing::Number<double>;
  static Number sqrt(Number v) { return Number::of("sqrt", v); }
};

template <>
struct Ops<testing::Number<float>> {
  using Number = testing::Number<float>;
  using Word = testing::Word;
  using Half = testing::Half;
  static Number sqrt(Number v) { return Number::of("sqrt", v); }
  static Number multiply_add(Number a, Number b, Number c) { return Number::of("fma", a, b, c); }
  static Number from_integer(Word w) { return Number::of("from_integer", w); }
  static Word bits(Number v) { return Word::of("bits", v); }
  static Number from_bits(Word w) { return Number::of("from_bits", w); }
  static Word widen(Half h) { return Word::of("widen", h); }
  static Half narrow(Word w) { return Half::of("narrow", w); }
  // To nearest even is one operation.
  static constexpr bool kHasBFloat16 = true, kHasFloat16 = true;
  static Half to_bfloat16(Number v) { return Half::of("to_bfloat16", v); }
  static Half to_float16(Number v) { return Half::of("to_float16", v); }
  static Number from_float16(Half h) { return Number::of("from_float16", h); }
};

template <>
struct Ops<testing::Word> {
  static void multiply_wide(testing::Word a, uint32_t b, testing::Word& high, testing::Word& low) {
    high = testing::Word::of("imulhi", a, testing::Word(b));
    low = a * b;
  }
};

}  // namespace EXTRAP_ISA
}  // namespace extrap
