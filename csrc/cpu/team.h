// How many threads a parallel region takes.
#pragma once

#include <cstdint>

namespace snn {

// All of them, or one where there is nothing to share out. Nothing between: OpenMP ends the threads that a smaller team
// leaves over, and makes them anew for the next.
inline int team_of(int threads, int64_t jobs) { return threads > 1 && jobs > 1 ? threads : 1; }

}  // namespace snn
