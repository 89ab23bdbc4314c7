// Whether gains and losses, one for each sample, are more than luck, by their sizes and not their number alone.
#pragma once

#include <span>

namespace qc {

// The one-sided probability that luck alone gives gains (above 0) which outweigh the losses (below) as far as these do, where luck makes
// either as likely for each sample: the test of signed ranks (F. Wilcoxon, Biometrics Bulletin 1, 1945).  What is 0 tells nothing, equal
// sizes share their ranks (J. W. Pratt, Journal of the American Statistical Association 54, 1959, has other ways).  Exact up to
// kExactRanks; above that by the normal distribution with the correction for continuity.
inline constexpr int kExactRanks = 64;
double signedRank(std::span<const double> gains);

}  // namespace qc
