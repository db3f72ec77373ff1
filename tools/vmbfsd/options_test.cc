#include "tools/vmbfsd/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace vmbfs {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

struct Parsed {
  std::variant<DaemonOptions, int> result;
  std::string out;
  std::string err;
};

Parsed Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "vmbfsd");
  std::ostringstream out;
  std::ostringstream err;
  auto result = ParseDaemonOptions(static_cast<int>(arguments.size()), arguments.data(), out, err);
  return {std::move(result), out.str(), err.str()};
}

std::string ConfigFile(const std::string& text) {
  const std::filesystem::path path = std::filesystem::path(testing::TempDir()) / "vmbfsd.conf";
  std::ofstream(path) << text;
  return path;
}

TEST(DaemonOptions, FoldersAloneGiveDefaults) {
  const Parsed parsed = Parse({"--state-dir", "/s", "--runtime-dir", "/r"});
  const auto& options = std::get<DaemonOptions>(parsed.result);
  EXPECT_EQ(options.host.state_dir, "/s");
  EXPECT_EQ(options.host.runtime_dir, "/r");
  EXPECT_EQ(options.host.boot_bytes_max, uint64_t{4} << 30);
  EXPECT_EQ(options.host.rdma_bytes_min, uint64_t{1} << 20);
  EXPECT_EQ(options.host.spin_us, 50u);
  EXPECT_EQ(options.host.spin_percent, 20u);
  EXPECT_EQ(options.log_level, "info");
}

TEST(DaemonOptions, ConfigFileHasTheSameKeysAndTheCommandLineWins) {
  const std::string config = ConfigFile(
      "state-dir = \"/from-file\"\nruntime-dir = \"/r\"\n"
      "boot-bytes-max = 1048576\nblocking-threads = 7\nspin-us = 0\nspin-percent = 35\nlog-level = "
      "\"debug\"\n");
  const Parsed parsed = Parse({"--config", config.c_str(), "--blocking-threads", "2"});
  const auto& options = std::get<DaemonOptions>(parsed.result);
  EXPECT_EQ(options.host.state_dir, "/from-file");
  EXPECT_EQ(options.host.boot_bytes_max, 1048576u);
  EXPECT_EQ(options.host.blocking_threads, 2u);
  EXPECT_EQ(options.host.spin_us, 0u);
  EXPECT_EQ(options.host.spin_percent, 35u);
  EXPECT_EQ(options.log_level, "debug");
}

TEST(DaemonOptions, UnknownKeyInTheConfigFileIsAUsageError) {
  const std::string config = ConfigFile("state-dir=\"/s\"\nruntime-dir=\"/r\"\nthreds = 3\n");
  const Parsed parsed = Parse({"--config", config.c_str()});
  EXPECT_EQ(std::get<int>(parsed.result), kExitUsage);
  EXPECT_THAT(parsed.err, HasSubstr("threds"));
}

TEST(DaemonOptions, MissingConfigFileIsAUsageError) {
  const Parsed parsed =
      Parse({"--state-dir", "/s", "--runtime-dir", "/r", "--config", "/does/not/exist"});
  EXPECT_EQ(std::get<int>(parsed.result), kExitUsage);
}

TEST(DaemonOptions, MissingFolderIsAUsageErrorOnStderr) {
  const Parsed parsed = Parse({"--state-dir", "/s"});
  EXPECT_EQ(std::get<int>(parsed.result), kExitUsage);
  EXPECT_EQ(parsed.out, "");
  EXPECT_THAT(parsed.err, StartsWith("vmbfsd: --runtime-dir"));
}

TEST(DaemonOptions, NumberOutOfRangeIsAUsageError) {
  for (const auto& [option, value] : {std::pair{"--blocking-threads", "0"},
                                      {"--spin-percent", "101"},
                                      {"--spin-us", "1000001"}}) {
    const Parsed parsed = Parse({"--state-dir", "/s", "--runtime-dir", "/r", option, value});
    EXPECT_EQ(std::get<int>(parsed.result), kExitUsage) << option;
  }
}

TEST(DaemonOptions, VersionAndHelpGoToStdout) {
  const Parsed version = Parse({"--version"});
  EXPECT_EQ(std::get<int>(version.result), kExitDone);
  EXPECT_EQ(version.out, "vmbfsd 0.1.0\n");
  const Parsed help = Parse({"--help"});
  EXPECT_EQ(std::get<int>(help.result), kExitDone);
  EXPECT_THAT(help.out, HasSubstr("--boot-bytes-max"));
}

}  // namespace
}  // namespace vmbfs
