// What the sections of a report say, as HTML; empty where there is nothing to say.
#pragma once

#include <string>

#include "runtime/insight/report/report.h"

namespace qc::report {

// "Measured on ..", where that is known.
std::string measuredOn(const ReportData& data);

// sections_run.cpp
std::string summarySection(const ReportData& data);
std::string inputsSection(const ReportData& data);
std::string timelineSection(const ReportData& data);
std::string nextSection(const ReportData& data);
std::string rulesSection(const ReportData& data);
// sections_layers.cpp
std::string graphSection(const ReportData& data);
std::string coverageSection(const ReportData& data);
std::string noiseSection(const ReportData& data);
std::string debugSection(const ReportData& data);
std::string sensitivitySection(const ReportData& data);
std::string mixtureSection(const ReportData& data);
// sections_verdicts.cpp
std::string causesSection(const ReportData& data);
std::string ledgerSection(const ReportData& data);
std::string besideSection(const ReportData& data);
std::string answersSection(const ReportData& data);
// sections_values.cpp
std::string rangesSection(const ReportData& data);
std::string weightsSection(const ReportData& data);

}  // namespace qc::report
