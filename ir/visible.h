// Names come from models and messages go to terminals: what a terminal would take as a command is shown as text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qc {

// The bytes of the well-formed UTF-8 character in front; 0 if there is none, or if it is one that controls a terminal or the direction of
// writing, a line break included.
size_t printableLength(std::string_view text);

// The same text with every other byte as \xNN.  Line breaks and tabs stay where `lines` says so.
std::string visible(std::string_view text, bool lines = false);

// Names of files for things that have names of any kind, in their order: no path, no control characters, no leading dot or dash, of bounded
// length, all different also where upper and lower case are the same.  A name that can stay as it is does.
std::vector<std::string> fileNames(const std::vector<std::string>& names, std::string_view suffix);

}  // namespace qc
