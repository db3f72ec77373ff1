// Each sample makes a valid hive that does what its first line says.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/hive/explain.h"
#include "core/hive/imc_build.h"

namespace vmbfs::hive {
namespace {

using testing::IsEmpty;
using testing::IsSupersetOf;
using Lines = std::vector<std::string>;

const std::filesystem::path kFolder = "tools/samples";

ImcInput Read(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {.name = path.filename(), .bytes = {data, data + text.size()}};
}

// What the hive of these samples does.
Lines Explained(const std::vector<std::string>& names) {
  std::vector<ImcInput> inputs;
  for (const std::string& name : names) inputs.push_back(Read(kFolder / name));
  const absl::StatusOr<ImcBuild> build = BuildImc(inputs, {});
  EXPECT_TRUE(build.ok()) << build.status();
  if (!build.ok()) return {};
  EXPECT_THAT(build->warnings, IsEmpty());
  const absl::StatusOr<ImcValidation> valid = ValidateImc(build->hive);
  EXPECT_TRUE(valid.ok()) << valid.status();
  if (!valid.ok()) return {};
  EXPECT_THAT(valid->warnings, IsEmpty());
  return ExplainHive(valid->tree);
}

TEST(SamplesTest, ComputerHasItsNameAndUtc) {
  EXPECT_THAT(
      Explained({"computer-name-and-time-zone.reg"}),
      IsSupersetOf(
          {"the computer's name from the next boot on is \"WEB-7\"",
           "the computer's name of this boot is \"WEB-7\"", "the TCP/IP host name is \"web-7\"",
           "the TCP/IP host name from the next boot on is \"web-7\"", "the time zone is \"UTC\""}));
}

TEST(SamplesTest, AgentIsAService) {
  EXPECT_THAT(Explained({"agent-service.reg"}),
              IsSupersetOf({"service agent is a program of its own process",
                            "service agent starts automatically, at boot",
                            "a failure of service agent at boot is logged, and the boot goes on",
                            "service agent runs \"%SystemDrive%\\agent\\agent.exe --service\"",
                            "service agent runs as \"LocalSystem\"",
                            "service agent starts after services [\"Tcpip\"]"}));
}

TEST(SamplesTest, DebuggerSeesAllMessagesAndTheCrash) {
  EXPECT_THAT(Explained({"serial-debugging.reg"}),
              IsSupersetOf({"sets SYSTEM\\CurrentControlSet\\Control\\Session Manager\\Debug Print "
                            "Filter\\DEFAULT to 4294967295 (0xffffffff), REG_DWORD",
                            "a crash restarts the machine: no",
                            "a non-maskable interrupt crashes the machine: yes"}));
}

TEST(SamplesTest, CrashLeavesADump) {
  EXPECT_THAT(Explained({"crash-dumps.reg"}),
              IsSupersetOf({"a crash writes a dump of the kernel's memory",
                            "a crash restarts the machine: yes",
                            "a crash dump is kept as \"%SystemRoot%\\MEMORY.DMP\"",
                            "small dumps are kept in \"%SystemRoot%\\Minidump\""}));
}

TEST(SamplesTest, SamplesThatDoNotContradictGoTogether) {
  EXPECT_EQ(
      Explained({"computer-name-and-time-zone.reg", "agent-service.reg", "crash-dumps.reg"}).size(),
      30u);
}

TEST(SamplesTest, OneIsAsRegeditExportsAndNoneIsWithoutATest) {
  size_t utf16 = 0;
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    if (entry.path().extension() != ".reg") continue;
    ++files;
    const ImcInput sample = Read(entry.path());
    ASSERT_GT(sample.bytes.size(), 2u);
    if (sample.bytes[0] == std::byte{0xff} && sample.bytes[1] == std::byte{0xfe}) ++utf16;
  }
  EXPECT_EQ(files, 4u);
  EXPECT_EQ(utf16, 1u);
}

}  // namespace
}  // namespace vmbfs::hive
