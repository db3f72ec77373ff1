// `vmbfsctl imc` as command lines, without a daemon.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tools/vmbfsctl/ctl.h"

namespace vmbfs::ctl {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

constexpr char kService[] =
    "Windows Registry Editor Version 5.00\n\n"
    "[HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services\\agent]\n"
    "\"Start\"=dword:2\n\"Type\"=dword:10\n\"ImagePath\"=\"C:\\\\agent.exe\"\n";

struct Result {
  int exit_code;
  std::string out;
  std::string err;
};

class ImcCommandsTest : public testing::Test {
 protected:
  ImcCommandsTest() { std::filesystem::create_directories(folder_); }
  ~ImcCommandsTest() override { std::filesystem::remove_all(folder_); }

  Result Imc(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "imc");
    std::ostringstream out;
    std::ostringstream err;
    const int exit_code = RunCtl(std::move(arguments), out, err);
    return {exit_code, out.str(), err.str()};
  }
  std::string Path(const std::string& name) { return folder_ / name; }
  ptrdiff_t FileCount() { return std::distance(std::filesystem::directory_iterator(folder_), {}); }
  std::string File(const std::string& name, const std::string& content) {
    std::ofstream(Path(name), std::ios::binary) << content;
    return Path(name);
  }
  std::string Read(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  // A hive of this text.
  std::string Hive(const std::string& name, const std::string& reg) {
    const Result built = Imc({"build", File(name + ".reg", reg), "--output", Path(name)});
    EXPECT_EQ(built.exit_code, kExitDone) << built.err;
    return Path(name);
  }

 private:
  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) /
      testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(ImcCommandsTest, ABuiltHiveIsValidAndCanBeShownAndExplained) {
  const std::string hive = Hive("imc.hiv", kService);
  const Result valid = Imc({"validate", hive});
  EXPECT_EQ(valid.exit_code, kExitDone) << valid.err;
  EXPECT_THAT(valid.out, HasSubstr("valid, 5 keys"));
  EXPECT_EQ(Imc({"explain", hive}).out,
            "the machine takes this hive if it has not seen number 2\n"
            "service agent starts automatically, at boot\n"
            "service agent is a program of its own process\n"
            "service agent runs \"C:\\agent.exe\"\n");
  EXPECT_THAT(Imc({"show", hive}).out,
              HasSubstr("      Services\n        agent\n          Start = 2  REG_DWORD\n"));
  EXPECT_THAT(Imc({"show", hive, "--format", "reg"}).out,
              HasSubstr("[HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services\\agent]\n"
                        "\"Start\"=dword:00000002\n"));
}

TEST_F(ImcCommandsTest, BuildingTwiceGivesTheSameBytesAndDigest) {
  const std::string reg = File("in.reg", kService);
  const Result first = Imc({"build", reg, "--output", Path("a")});
  const Result second = Imc({"build", reg, "--output", Path("b")});
  EXPECT_EQ(Read(Path("a")), Read(Path("b")));
  EXPECT_EQ(first.out.substr(0, 64), second.out.substr(0, 64));
}

TEST_F(ImcCommandsTest, AHiveShownAsJsonIsBuiltAgainAsTheSameBytes) {
  const std::string hive = Hive("a", std::string(kService) + "\"Größe\"=\"😀\"\n\"x\"=hex(7):00,00\n");
  const Result shown = Imc({"show", hive, "--format", "json"});
  EXPECT_EQ(shown.exit_code, kExitDone) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr("\"Start\": {\"dword\": 2},\n"));
  EXPECT_EQ(Imc({"build", File("a.json", shown.out), "--output", Path("b")}).exit_code, kExitDone);
  EXPECT_EQ(Read(Path("b")), Read(hive));
  // The form for regedit as well, in UTF-16.
  const Result reg = Imc({"show", hive, "--format", "reg"});
  EXPECT_THAT(reg.out, StartsWith("\xFF\xFEW"));
  EXPECT_EQ(Imc({"build", File("a.reg", reg.out), "--output", Path("c")}).exit_code, kExitDone);
  EXPECT_EQ(Read(Path("c")), Read(hive));
}

TEST_F(ImcCommandsTest, SeveralInputsMakeOneHiveAndAValueThatTwoGiveIsRefused) {
  const std::string one = File("one.reg", kService);
  const std::string two = File("two.reg",
                               "Windows Registry Editor Version 5.00\n"
                               "[HKLM\\SYSTEM\\CurrentControlSet\\Services\\agent]\n"
                               "\"ErrorControl\"=dword:1\n");
  EXPECT_EQ(Imc({"build", one, two, "--output", Path("both")}).exit_code, kExitDone);
  EXPECT_THAT(Imc({"explain", Path("both")}).out, HasSubstr("is logged, and the boot goes on"));
  const Result refused = Imc({"build", two, one, two, "--output", Path("none")});
  EXPECT_EQ(refused.exit_code, kExitFailed);
  EXPECT_THAT(refused.err, HasSubstr("two.reg:3:1: value ErrorControl is there already"));
  EXPECT_FALSE(std::filesystem::exists(Path("none")));
}

TEST_F(ImcCommandsTest, AnErrorHasFileLineAndColumnAndLeavesTheOutputAsItWas) {
  const std::string output = File("imc.hiv", "as it was");
  const Result failed =
      Imc({"build", File("in.reg", std::string(kService) + "\"x\"=1\n"), "--output", output});
  EXPECT_EQ(failed.exit_code, kExitFailed);
  EXPECT_THAT(failed.err, HasSubstr("in.reg:7:5: data is a string"));
  EXPECT_EQ(Read(output), "as it was");
}

TEST_F(ImcCommandsTest, AnOutputThatIsNoRegularFileIsLeftAlone) {
  const std::string reg = File("in.reg", kService);
  std::filesystem::create_directory(Path("folder"));
  ASSERT_EQ(mkfifo(Path("fifo").c_str(), 0600), 0);
  for (const std::string name : {"folder", "fifo"}) {
    const Result refused = Imc({"build", reg, "--output", Path(name)});
    EXPECT_EQ(refused.exit_code, kExitFailed);
    EXPECT_THAT(refused.err, HasSubstr(Path(name) + " is no regular file"));
  }
  EXPECT_TRUE(std::filesystem::is_fifo(Path("fifo")));
  EXPECT_EQ(FileCount(), 3);
}

TEST_F(ImcCommandsTest, NothingElseBesideTheOutputIsTouched) {
  const std::string mine = File("a.new", "mine");
  Hive("a", kService);
  EXPECT_EQ(Read(mine), "mine");
  EXPECT_EQ(FileCount(), 3);
}

// As a file that grows while it is read: its size was said to be 0.
TEST_F(ImcCommandsTest, AnInputWithMoreBytesThanItsSizeSaysIsRefused) {
  const Result refused = Imc({"validate", "/proc/self/status"});
  EXPECT_EQ(refused.exit_code, kExitFailed);
  EXPECT_THAT(refused.err, HasSubstr("/proc/self/status: it has more bytes than its size says"));
}

TEST_F(ImcCommandsTest, ASeenSequenceWantsForce) {
  const std::string reg = File("in.reg", kService);
  const Result refused = Imc({"build", reg, "--output", Path("a"), "--sequence", "1"});
  EXPECT_EQ(refused.exit_code, kExitFailed);
  EXPECT_THAT(refused.err, HasSubstr("--force"));
  const Result forced = Imc({"build", reg, "--output", Path("a"), "--sequence", "1", "--force"});
  EXPECT_EQ(forced.exit_code, kExitDone);
  EXPECT_THAT(forced.err, HasSubstr("warning: Sequence is below 2"));
}

TEST_F(ImcCommandsTest, TheFormForWmiHasItsLengthInFront) {
  const std::string reg = File("in.reg", kService);
  EXPECT_EQ(Imc({"build", reg, "--output", Path("wmi"), "--wmi"}).exit_code, kExitDone);
  const std::string bytes = Read(Path("wmi"));
  ASSERT_EQ(bytes.size(), 4u + 8192u);
  EXPECT_EQ(bytes.substr(0, 8), std::string("\x00\x00\x20\x04regf", 8));
  const Result refused = Imc({"validate", Path("wmi")});
  EXPECT_EQ(refused.exit_code, kExitFailed);
  EXPECT_THAT(refused.err, HasSubstr("a hive behind a length"));
}

TEST_F(ImcCommandsTest, ABrokenHiveIsRefusedWithPlaceAndReason) {
  std::string bytes = Read(Hive("imc.hiv", kService));
  bytes[0x1024] = 'x';
  const Result refused = Imc({"validate", File("broken", bytes)});
  EXPECT_EQ(refused.exit_code, kExitFailed);
  EXPECT_THAT(refused.err, HasSubstr("broken: key at 0x1020: its signature is not `nk`"));
  EXPECT_THAT(refused.out, IsEmpty());
}

TEST_F(ImcCommandsTest, DiffSaysByItsExitCodeWhetherHivesAreTheSame) {
  const std::string a = Hive("a", kService);
  const std::string b = Hive("b", std::string(kService) + "\"ErrorControl\"=dword:1\n");
  EXPECT_EQ(Imc({"diff", a, a}).exit_code, 0);
  const Result different = Imc({"diff", a, b});
  EXPECT_EQ(different.exit_code, 1);
  EXPECT_THAT(different.out,
              StartsWith("+ SYSTEM\\CurrentControlSet\\Services\\agent\\ErrorControl"));
  EXPECT_THAT(Imc({"diff", b, a, "--reg"}).out, HasSubstr("\"ErrorControl\"=-"));
  EXPECT_EQ(Imc({"diff", a, Path("missing")}).exit_code, 2);
}

TEST_F(ImcCommandsTest, OutputThatCannotBeWrittenIsNoDifference) {
  const std::string a = Hive("a", kService);
  const std::string b = Hive("b", std::string(kService) + "\"ErrorControl\"=dword:1\n");
  std::ofstream full("/dev/full");
  std::ostringstream err;
  EXPECT_EQ(RunCtl({"imc", "diff", a, b}, full, err), 2);
  EXPECT_THAT(err.str(), HasSubstr("cannot write the output"));
  full.clear();
  EXPECT_EQ(RunCtl({"imc", "explain", a}, full, err), kExitFailed);
}

}  // namespace
}  // namespace vmbfs::ctl
