// Graphs in text form that nobody trusts: whatever the text, parsing gives an error or a graph that verifies and prints to a fixed point,
// and the passes over such a graph give an error or a graph that verifies.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qc::testing {

// Every graph of the golden tests.
std::vector<std::string> goldenTexts();
// Some words exchanged for others of their kind, mostly: plain noise rarely gets past the parser.
std::string damagedText(const std::string& text, const std::vector<std::string>& donors, uint64_t seed);

// What is wrong with the product; empty: a result or an error came out, as it must.  `round` chooses the passes.
std::string complaintAboutText(const std::string& text, uint64_t round, int& accepted);

}  // namespace qc::testing
