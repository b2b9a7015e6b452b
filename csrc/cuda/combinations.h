// What each object of cuda/instantiate.cu offers.
#pragma once

#include "cuda/catalog.h"

namespace extrap::cuda {

template <class P, class G>
RuleLaunches device_rule_of(const char* name, int buffers);

template <>
RuleLaunches device_rule_of<float, float>(const char* name, int buffers);
template <>
RuleLaunches device_rule_of<double, double>(const char* name, int buffers);
template <>
RuleLaunches device_rule_of<BFloat16, BFloat16>(const char* name, int buffers);
template <>
RuleLaunches device_rule_of<BFloat16, float>(const char* name, int buffers);
template <>
RuleLaunches device_rule_of<Float16, Float16>(const char* name, int buffers);
template <>
RuleLaunches device_rule_of<Float16, float>(const char* name, int buffers);

}  // namespace extrap::cuda
