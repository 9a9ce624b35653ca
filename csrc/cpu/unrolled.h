// Loops that the vectoriser does not see.
#pragma once

#include <utility>

#include "../core/macros.h"

namespace snn::SNN_ISA {

template <int... I, class Body>
SNN_FN void unrolled(std::integer_sequence<int, I...>, Body body) {
    (body(std::integral_constant<int, I>{}), ...);
}

// Calls body(0), ..., body(Count - 1) with compile-time constants: a loop over steps would keep the vectoriser from
// seeing the loop over neurons around it as the innermost one.
template <int Count, class Body>
SNN_FN void unrolled(Body body) {
    unrolled(std::make_integer_sequence<int, Count>{}, body);
}

}  // namespace snn::SNN_ISA
