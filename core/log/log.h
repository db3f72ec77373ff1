// The daemon's log: lines on stderr.

#pragma once

#include <spdlog/logger.h>

#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace vmbfs::log {

// "trace", "debug", "info", "warning", "error", "critical", "off".
// Errors: kInvalidArgument with the names there are.
absl::StatusOr<spdlog::level::level_enum> LevelFromName(std::string_view name);

// A logger to stderr, safe for many threads, whose lines read
// `2024-05-01T12:00:00.123Z warning text`.
std::shared_ptr<spdlog::logger> MakeStderrLogger(spdlog::level::level_enum level);

// Makes such a logger the one that spdlog::info() and its kind write to.
// Errors: as LevelFromName.
absl::Status SetUpDefaultLogger(std::string_view level_name);

}  // namespace vmbfs::log
