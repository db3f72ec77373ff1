#include "core/log/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <array>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/log/escape.h"

namespace vmbfs::log {
namespace {

constexpr std::array<std::pair<const char*, spdlog::level::level_enum>, 7> kLevels = {{
    {"trace", spdlog::level::trace},
    {"debug", spdlog::level::debug},
    {"info", spdlog::level::info},
    {"warning", spdlog::level::warn},
    {"error", spdlog::level::err},
    {"critical", spdlog::level::critical},
    {"off", spdlog::level::off},
}};

}  // namespace

absl::StatusOr<spdlog::level::level_enum> LevelFromName(std::string_view name) {
  std::string names;
  for (const auto& [level_name, level] : kLevels) {
    if (name == level_name) return level;
    absl::StrAppend(&names, names.empty() ? "" : ", ", level_name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("no log level is called \"", Escape(name), "\"; there are ", names));
}

std::shared_ptr<spdlog::logger> MakeStderrLogger(spdlog::level::level_enum level) {
  auto logger =
      std::make_shared<spdlog::logger>("vmbfs", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_level(level);
  logger->set_formatter(std::make_unique<spdlog::pattern_formatter>(
      "%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc));
  return logger;
}

absl::Status SetUpDefaultLogger(std::string_view level_name) {
  const auto level = LevelFromName(level_name);
  if (!level.ok()) return level.status();
  spdlog::set_default_logger(MakeStderrLogger(*level));
  return absl::OkStatus();
}

}  // namespace vmbfs::log
