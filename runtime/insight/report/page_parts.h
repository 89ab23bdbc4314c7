// The files of this folder that a page is made of: page.html, style.css, script.js.  CMake puts their text into page_parts.cpp.in.
#pragma once

#include <string_view>

namespace qc::report {

extern const std::string_view kPage, kStyle, kScript;

}  // namespace qc::report
