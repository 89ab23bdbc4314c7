// Whether gains and losses, one for each sample, are more than luck, by their sizes and not their number alone.
#pragma once

#include <span>

namespace qc {

// The one-sided probability that luck alone gives gains (above 0) that come to as much, less the losses (below), as these do, where luck
// makes either as likely for each sample: of all ways to give signs to these sizes the share whose sum is as large (E. J. G. Pitman,
// Supplement to the Journal of the Royal Statistical Society 4, 1937).  It holds whatever the sizes are like.  All ways up to kExactFlips
// samples; above that by the normal distribution.
inline constexpr int kExactFlips = 18;
double signFlips(std::span<const double> gains);

}  // namespace qc
