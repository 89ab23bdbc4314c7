// What the parts of ir/files.h share.
#pragma once

#include <limits.h>
#include <sys/stat.h>

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ir/files.h"

namespace qc {

std::string_view kindOfFile(unsigned mode);  // "a folder", "a pipe", ...

void noteInput(const struct stat& file);  // nothing unless protectInputs() was called
bool isInput(const struct stat& file);

// A file or flat folder that goes when the process is ended by a signal.  Entries of a list that only grows, so that a handler may walk it
// at any time; one that is done with is used again.
struct Temporary {
  std::atomic<bool> taken{true}, live{false};
  bool isFolder = false;
  int parent = -1;
  char name[NAME_MAX + 1] = {};
  Temporary* next = nullptr;
};

// Named .STEM.PID.RANDOM.tmp and known from now on; not created.
TemporaryEntry newTemporary(int parent, const std::string& stem, bool isFolder);
void removeTemporary(const Temporary& t);
// Those in the folder that processes which are no more made for one of these stems.  The folder is read once, however many they are.
void removeLeftovers(int folder, const std::vector<std::string>& stems);

}  // namespace qc
