#include "runtime/insight/report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "quantizer/observers/seen_histogram.h"
#include "runtime/insight/report/charts.h"
#include "runtime/insight/report/graph_picture.h"
#include "runtime/insight/report/html.h"
#include "runtime/insight/report/layered_layout.h"

namespace qc::report {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Html, EscapesWhateverComes) {
  EXPECT_EQ(escaped("<a href=\"x\" b='y'>&amp;"), "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;amp;");
  EXPECT_EQ(escaped(std::string("\0\x1b\xff", 3)), "\\x00\\x1b\\xff");
  EXPECT_EQ(escaped("grün \u4e2d"), "grün \u4e2d");
  for (int c = 0; c < 256; ++c) {
    const std::string text = escaped(std::string(1, static_cast<char>(c)));
    EXPECT_EQ(text.find_first_of("<>\"'"), std::string::npos) << c;
    for (const char each : text) EXPECT_TRUE(each >= ' ' && each < 127) << c;
  }
}

TEST(Html, ShortensBetweenCharacters) {
  EXPECT_EQ(shortened("abc", 10), "abc");
  EXPECT_EQ(shortened("0123456789", 7), "01\u20266789");
  EXPECT_EQ(shortened("ääääääääää", 7), "ää\u2026ääää");
}

TEST(Html, TableOfNumbersAndNone) {
  HtmlTable table({"a", "<b>"});
  table.add({HtmlTable::Cell::text("<x>"), HtmlTable::Cell::of(std::nan(""))});
  table.add({HtmlTable::Cell::text("y"), HtmlTable::Cell::of(INFINITY)});
  table.add({HtmlTable::Cell::text("z"), HtmlTable::Cell::of(1.5)});
  const std::string html = table.html();
  EXPECT_THAT(html, HasSubstr("<td>&lt;x&gt;</td>"));
  EXPECT_THAT(html, HasSubstr("&lt;b&gt;"));
  EXPECT_THAT(html, HasSubstr("data-v=\"none\""));
  EXPECT_THAT(html, HasSubstr("data-v=\"inf\""));
  EXPECT_THAT(html, HasSubstr("data-v=\"1.5\">1.5<"));
}

// No two boxes overlap, and every edge leads down.
void check(size_t nodes, const std::vector<std::pair<int, int>>& edges) {
  const BoxSize box;
  const Layout layout = layered(nodes, edges, box);
  ASSERT_EQ(layout.nodes.size(), nodes);
  ASSERT_EQ(layout.lines.size(), edges.size());
  for (size_t i = 0; i < nodes; ++i) {
    const Place& a = layout.nodes[i];
    EXPECT_GE(a.x - box.width / 2, 0);
    EXPECT_LE(a.x + box.width / 2, layout.width);
    EXPECT_LE(a.y + box.height / 2, layout.height);
    for (size_t j = 0; j < i; ++j) {
      const Place& b = layout.nodes[j];
      EXPECT_TRUE(std::fabs(a.y - b.y) >= box.height || std::fabs(a.x - b.x) >= box.width - 1e-6) << i << " on " << j;
    }
  }
  for (size_t e = 0; e < edges.size(); ++e) {
    const auto& line = layout.lines[e];
    if (edges[e].first < 0 || edges[e].first >= edges[e].second || edges[e].second >= static_cast<int>(nodes)) {
      EXPECT_TRUE(line.empty());
      continue;
    }
    ASSERT_GE(line.size(), 2u);
    for (size_t i = 1; i < line.size(); ++i) EXPECT_GT(line[i].y, line[i - 1].y);
  }
}

TEST(Layout, SmallOnes) {
  check(0, {});
  check(1, {});
  check(2, {{0, 1}});
  check(4, {{0, 1}, {0, 2}, {1, 3}, {2, 3}});
  check(5, {{0, 1}, {1, 2}, {2, 3}, {3, 4}, {0, 4}});
  check(3, {{2, 1}, {1, 1}, {0, 2}, {0, 9}, {-1, 0}});  // not edges of a schedule: passed over
}

TEST(Layout, RandomOnes) {
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    const int nodes = 2 + static_cast<int>(random() % 60);
    std::vector<std::pair<int, int>> edges;
    for (int i = 1; i < nodes; ++i)
      for (unsigned k = 0; k < 1 + random() % 3; ++k) edges.emplace_back(static_cast<int>(random() % static_cast<unsigned>(i)), i);
    check(static_cast<size_t>(nodes), edges);
  }
}

TEST(Layout, ManyLongEdges) {  // more bends than it makes
  std::vector<std::pair<int, int>> edges;
  for (int i = 1; i < 1500; ++i) {
    edges.emplace_back(i - 1, i);
    edges.emplace_back(0, i);
  }
  EXPECT_EQ(layered(1500, edges).lines.size(), edges.size());
}

GraphPicture chain(size_t count) {
  GraphPicture p;
  for (size_t i = 0; i < count; ++i) {
    p.nodes.push_back({"op", "n" + std::to_string(i), "", i < count / 2 ? Fate::integer : Fate::real});
    if (i) p.edges.emplace_back(static_cast<int>(i) - 1, static_cast<int>(i));
  }
  return p;
}

TEST(GraphPicture, ChainsBecomeOneBox) {
  const GraphPicture small = chain(1000).readable(300);
  ASSERT_EQ(small.nodes.size(), 2u);
  EXPECT_EQ(small.nodes[0].count, 500);
  EXPECT_EQ(small.nodes[1].count, 500);
  EXPECT_EQ(small.edges.size(), 1u);
  EXPECT_THAT(small.note, HasSubstr("1000 nodes are drawn as 2 boxes"));
  EXPECT_EQ(chain(300).readable(300).nodes.size(), 300u);
}

TEST(GraphPicture, WhatCannotBeDrawnIsSaid) {
  GraphPicture wide;
  wide.nodes.assign(1000, {"op", "n", "", Fate::real});
  for (int i = 1; i < 1000; ++i) wide.edges.emplace_back(0, i);
  const GraphPicture cut = wide.readable(300);
  EXPECT_EQ(cut.nodes.size(), 300u);
  EXPECT_EQ(cut.edges.size(), 299u);
  EXPECT_THAT(cut.note, HasSubstr("the first 300 of 1000 boxes are drawn"));
}

TEST(GraphPicture, NamesAreAnyBytes) {
  GraphPicture p;
  p.nodes = {{"a\"];x", "</text><script>alert(1)</script>", "]]>\xff\n\\", Fate::integer}, {"b", "\\", "&lt;", Fate::border}};
  p.edges = {{0, 1}};
  const std::string svg = p.svg(), dot = p.dot();
  EXPECT_THAT(svg, Not(HasSubstr("<script")));
  EXPECT_THAT(svg, Not(HasSubstr("\xff")));
  EXPECT_THAT(dot, HasSubstr("a\\\"];x"));

  EXPECT_THAT(dot, HasSubstr("&amp;lt;"));
  EXPECT_THAT(dot, HasSubstr("n0 -> n1;"));
  // Quotes that no backslash escapes come in pairs on every line.
  int open = 0;
  for (size_t i = 0; i < dot.size(); ++i) {
    if (dot[i] == '\\') {
      ++i;
    } else if (dot[i] == '"') {
      open ^= 1;
    } else if (dot[i] == '\n') {
      EXPECT_EQ(open, 0) << dot.substr(0, i);
    }
  }
}

TEST(Charts, ClippedShare) {
  Histogram h(100);
  std::vector<float> data;
  for (int i = 0; i < 1000; ++i) data.push_back(static_cast<float>(i) / 100);
  h.add(data, 0, 9.99F);
  EXPECT_NEAR(clippedShare(h, {0, 9.99F}), 0, 1e-6);
  EXPECT_NEAR(clippedShare(h, {0, 4.995F}), 0.5, 0.01);
  EXPECT_NEAR(clippedShare(h, {2, 8}), 0.4, 0.01);
  EXPECT_NEAR(clippedShare(h, {20, 30}), 1, 1e-6);
}

TEST(Report, EmptyAndHostile) {
  EXPECT_THAT(reportPage({.title = "nothing"}), HasSubstr("</html>"));
  ReportData data{.title = "@SECTIONS@</title><script>"};
  data.facts = {{"@STYLE@", "</dd><img src=x>"}};
  data.warnings = {"<b>"};
  data.next = {{"<i>", "</pre>"}};
  data.rules = "</pre>\n\"<script>\"";
  std::vector<LayerNoise> noise = {{"</svg><script>", "conv\"", 20, 30}, {"y", "output", INFINITY, NAN}};
  data.noise = &noise;
  std::vector<StepProfile> steps = {{"<u>", "'", "", "<", 1, 1, 0, 0}};
  data.steps = &steps;
  const std::string page = reportPage(data);
  EXPECT_THAT(page, HasSubstr("@SECTIONS@&lt;/title&gt;"));
  for (const char* bad : {"<img", "<b>", "<i>", "<u>", "\"conv\"", "</svg><script>"}) EXPECT_THAT(page, Not(HasSubstr(bad)));
  size_t scripts = 0;
  for (size_t at = 0; (at = page.find("<script", at)) != std::string::npos; ++at) ++scripts;
  EXPECT_EQ(scripts, 1u);
}

}  // namespace
}  // namespace qc::report
