// The list of rules: a new one is a header in core/rules/ and a line here.
#pragma once

#include "core/rules/adam.h"
#include "core/rules/lamb.h"
#include "core/rules/lars.h"
#include "core/rules/sgd.h"

// X(rule, name in Python): a rule is chosen by its name and the number of its buffers.
#define EXTRAP_FOR_EACH_RULE(X) \
  X(Sgd, "sgd")                 \
  X(SgdMomentum, "sgd")         \
  X(Adam, "adam")               \
  X(Lars, "lars")               \
  X(LarsMomentum, "lars")       \
  X(Lamb, "lamb")
