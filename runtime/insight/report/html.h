// Pieces of a page.  Names come from models and may be any bytes: whatever is put on a page goes through escaped(), or is a number.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qc::report {

// As text or as an attribute in quotes, of HTML and of SVG.  Bytes that are no printable UTF-8 become \xNN.
std::string escaped(std::string_view text);

// At most so many characters, the middle left out.  Not escaped yet.
std::string shortened(std::string_view text, size_t most);

// A number as people read it: whole, or four digits, "inf" and "none" where it is neither.
std::string number(double value);

// Of names and messages: as much as a page bears.
inline constexpr size_t kLongest = 300;

// A table whose columns sort by a press on their heads.
class HtmlTable {
 public:
  struct Cell {
    std::string html;                   // escaped
    std::optional<double> number = {};  // sorts by it, and stands right
    bool wide = false;                  // text of more than one word
    static Cell text(std::string_view text);
    static Cell of(double value);
    static Cell decibels(double value);  // NaN: none
    static Cell of(double value, std::string text) { return {escaped(text), value}; }
  };
  explicit HtmlTable(std::vector<std::string> heads) : heads_(std::move(heads)) {}
  void add(std::vector<Cell> row) { rows_.push_back(std::move(row)); }
  bool empty() const { return rows_.empty(); }
  std::string html() const;  // no more rows than a page bears; it says so

 private:
  std::vector<std::string> heads_;
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace qc::report
