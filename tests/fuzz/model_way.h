// The whole way of a model whose bytes nobody trusts: imported, and what comes out verified, exported and simplified; when it is tiny it is
// evaluated, calibrated, quantized, lowered and evaluated again, with the interpreter as the engine.
#pragma once

#include <string>

namespace qc::testing {

struct ModelCount {
  int graphs = 0, evaluated = 0, quantized = 0, errors = 0;
};

// What is wrong with the product; empty: a result or an error came out, as it must.
std::string complaintAboutModel(const std::string& bytes, ModelCount& count);

}  // namespace qc::testing
