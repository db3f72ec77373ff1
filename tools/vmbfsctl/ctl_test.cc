// Whole command lines against a server in this process.

#include "tools/vmbfsctl/ctl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "core/host/host.h"
#include "core/inspect/node.h"
#include "grpc/server/test_server.h"

namespace vmbfs::ctl {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;
using testing::StartsWith;

// sha256 of "hive" and "other".
constexpr char kHiveDigest[] = "7640da40298286a6e462d5a80f1c608b0df8660fb13bd5aad0f32b6db68b42c0";
constexpr char kOtherDigest[] = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

struct Result {
  int exit_code;
  std::string out;
  std::string err;
};

Result RunAlone(std::vector<std::string> arguments) {
  std::ostringstream out;
  std::ostringstream err;
  const int exit_code = RunCtl(std::move(arguments), out, err);
  return {exit_code, out.str(), err.str()};
}

class CtlTest : public testing::Test {
 protected:
  Result Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--server", server_.address()});
    return RunAlone(std::move(arguments));
  }

  std::string File(const std::string& name, const std::string& content) {
    const std::filesystem::path path = server_.folder() / name;
    std::ofstream(path) << content;
    return path;
  }

  // A file of settings that name the computer.
  std::string RegFile(const std::string& computer, size_t comment_bytes = 0) {
    return File(computer + ".reg",
                "Windows Registry Editor Version 5.00\n;" + std::string(comment_bytes, ' ') +
                    "\n[HKLM\\SYSTEM\\CurrentControlSet\\Control\\ComputerName\\ComputerName]\n"
                    "\"ComputerName\"=\"" +
                    computer + "\"\n");
  }

  rpc::TestServer server_;
};

TEST_F(CtlTest, VmIsMadeShownListedAndDeleted) {
  const Result created = Run({"vm", "create", "web-7", "--owner", "1000"});
  EXPECT_EQ(created.exit_code, kExitDone) << created.err;
  EXPECT_THAT(created.out, AllOf(HasSubstr("web-7"), HasSubstr("uid 1000")));
  ASSERT_EQ(Run({"vm", "create", "db"}).exit_code, kExitDone);

  const Result got = Run({"vm", "get", "web-7", "-o", "json"});
  EXPECT_EQ(got.exit_code, kExitDone);
  EXPECT_THAT(got.out, HasSubstr("\"name\": \"vms/web-7\""));
  EXPECT_THAT(Run({"vm", "list"}).out, AllOf(HasSubstr("web-7"), HasSubstr("db")));
  EXPECT_THAT(Run({"vm", "list", "web"}).out, AllOf(HasSubstr("web-7"), Not(HasSubstr("db"))));

  EXPECT_THAT(Run({"vm", "create", "bad/name"}).err,
              StartsWith("vmbfsctl: \"bad/name\" cannot name a VM: "));
  const Result deleted = Run({"vm", "delete", "web-7"});
  EXPECT_EQ(deleted.exit_code, kExitDone);
  EXPECT_EQ(deleted.out, "");
  EXPECT_EQ(Run({"vm", "get", "web-7"}).exit_code, kExitNotFound);
}

TEST_F(CtlTest, UnsealedMemoryIsAskedForWithAFlag) {
  ASSERT_EQ(Run({"vm", "create", "sealed"}).exit_code, kExitDone);
  ASSERT_EQ(Run({"vm", "create", "open", "--allow-unsealed-memory"}).exit_code, kExitDone);
  EXPECT_THAT(Run({"vm", "get", "sealed"}).out, Not(HasSubstr("unsealed")));
  EXPECT_THAT(Run({"vm", "get", "open"}).out, HasSubstr("may be unsealed"));
}

TEST_F(CtlTest, MonitoredChannelsAreAskedForWithAFlag) {
  ASSERT_EQ(Run({"vm", "create", "plain"}).exit_code, kExitDone);
  ASSERT_EQ(Run({"vm", "create", "old-linux", "--monitored"}).exit_code, kExitDone);
  EXPECT_THAT(Run({"vm", "get", "plain"}).out, Not(HasSubstr("monitored")));
  EXPECT_THAT(Run({"vm", "get", "old-linux"}).out, HasSubstr("channels:  monitored\n"));
}

TEST_F(CtlTest, ListGoesThroughAllPages) {
  for (int i = 0; i < 501; ++i) {
    ASSERT_TRUE(server_.host().CreateVm("vm-" + std::to_string(1000 + i), {}).ok());
  }
  const Result list = Run({"vm", "list", "-o", "yaml"});
  EXPECT_EQ(list.exit_code, kExitDone);
  EXPECT_THAT(list.out, AllOf(HasSubstr("vms/vm-1000"), HasSubstr("vms/vm-1500")));
}

TEST_F(CtlTest, EmptyListSaysSoOnStderrOnly) {
  const Result list = Run({"vm", "list"});
  EXPECT_EQ(list.exit_code, kExitDone);
  EXPECT_EQ(list.out, "");
  EXPECT_NE(list.err, "");
}

TEST_F(CtlTest, AttachedFileIsShownAndSwapped) {
  Run({"vm", "create", "web"});
  const Result attached = Run({"attach", "web", "imc", "--file", File("a.hiv", "hive")});
  EXPECT_EQ(attached.exit_code, kExitDone) << attached.err;
  EXPECT_THAT(attached.out, HasSubstr(std::string("imc.hiv, 4 bytes, sha256 ") + kHiveDigest));
  server_.host().SetOpen("web", DeviceKind::kImc, true);

  const Result swapped = Run({"swap", "web", "imc", "--file", File("b.hiv", "other")});
  EXPECT_EQ(swapped.exit_code, kExitDone) << swapped.err;
  const Result got = Run({"vm", "get", "web"});
  EXPECT_THAT(got.out,
              AllOf(HasSubstr(std::string("wanted:  imc.hiv, 5 bytes, sha256 ") + kOtherDigest),
                    HasSubstr(std::string("active:  imc.hiv, 4 bytes, sha256 ") + kHiveDigest)));
}

TEST_F(CtlTest, BootFileHasItsOwnNameOrTheGivenOne) {
  Run({"vm", "create", "web"});
  const std::string file = File("vmlinuz-6.1", "kernel");
  EXPECT_THAT(Run({"attach", "web", "boot", "--file", file}).out,
              HasSubstr("wanted:  vmlinuz-6.1, 6 bytes"));
  EXPECT_THAT(Run({"swap", "web", "boot", "--file", file, "--name", "kernel"}).out,
              HasSubstr("wanted:  kernel, 6 bytes"));
}

TEST_F(CtlTest, FileAboveTheMessageLimitArrives) {
  Run({"vm", "create", "web"});
  const Result attached =
      Run({"attach", "web", "boot", "--file", File("disk", std::string(9'000'000, 'x'))});
  EXPECT_EQ(attached.exit_code, kExitDone) << attached.err;
  EXPECT_THAT(attached.out, HasSubstr("9000000 bytes"));
}

TEST_F(CtlTest, ContentThatTheDaemonRefusesFailsWithItsWords) {
  Run({"vm", "create", "web"});
  for (const size_t bytes : {size_t{0}, size_t{(16 << 20) + 1}}) {
    const Result refused =
        Run({"attach", "web", "imc", "--file", File("bad", std::string(bytes, 'x'))});
    EXPECT_EQ(refused.exit_code, kExitFailed);
    EXPECT_EQ(refused.out, "");
    EXPECT_EQ(refused.err, "vmbfsctl: a hive has 1 to 16777216 bytes\n");
  }
  const Result huge =
      Run({"attach", "web", "boot", "--file", File("huge", std::string((64 << 20) + 1, 'x'))});
  EXPECT_EQ(huge.exit_code, kExitFailed);
  EXPECT_THAT(huge.err, HasSubstr("no device takes more than 67108864"));
}

TEST_F(CtlTest, UploadIsNotSentForAVmThatIsNotThereOrAFileThatIsNone) {
  EXPECT_EQ(Run({"attach", "web", "imc", "--file", File("a", "hive")}).exit_code, kExitNotFound);
  EXPECT_EQ(Run({"swap", "web", "imc", "--file", File("a", "hive")}).exit_code, kExitNotFound);
  EXPECT_EQ(server_.host().blob_count(), 0u);
  Run({"vm", "create", "web"});
  const Result missing = Run({"attach", "web", "imc", "--file", "/does/not/exist"});
  EXPECT_EQ(missing.exit_code, kExitFailed);
  EXPECT_THAT(missing.err, StartsWith("vmbfsctl: /does/not/exist: "));
  EXPECT_THAT(Run({"attach", "web", "imc", "--file", server_.folder()}).err,
              HasSubstr("not a regular file"));
}

TEST_F(CtlTest, DetachNeedsForceWhileOpenAndWarnsWithIt) {
  Run({"vm", "create", "web"});
  Run({"attach", "web", "imc", "--file", File("a", "hive")});
  server_.host().SetOpen("web", DeviceKind::kImc, true);
  const Result refused = Run({"detach", "web", "imc"});
  EXPECT_EQ(refused.exit_code, kExitFailed);
  EXPECT_THAT(refused.err, Not(HasSubstr("warning")));
  const Result detached = Run({"detach", "web", "imc", "--force"});
  EXPECT_EQ(detached.exit_code, kExitDone);
  EXPECT_EQ(detached.out, "");
  EXPECT_THAT(detached.err, HasSubstr("warning: --force revokes the offer"));
  EXPECT_EQ(Run({"detach", "web", "imc"}).exit_code, kExitNotFound);
}

TEST_F(CtlTest, ProvisionedHiveIsTheOneThatBuildMakes) {
  const std::string reg = RegFile("WEB-7");
  const std::string hive = server_.folder() / "built.hiv";
  const Result built = RunAlone({"imc", "build", reg, "--output", hive});
  ASSERT_EQ(built.exit_code, kExitDone) << built.err;
  const std::string digest = built.out.substr(0, 64);

  EXPECT_EQ(Run({"imc", "provision", "web", reg}).exit_code, kExitNotFound);
  Run({"vm", "create", "web"});
  for (int i = 0; i < 2; ++i) {
    const Result provisioned = Run({"imc", "provision", "web", reg});
    EXPECT_EQ(provisioned.exit_code, kExitDone) << provisioned.err;
    EXPECT_THAT(provisioned.out, HasSubstr("imc.hiv, 8192 bytes, sha256 " + digest));
    EXPECT_EQ(provisioned.err, "");
  }
  const Result other = Run({"imc", "provision", "web", reg, "--sequence", "3", "--etag", "stale"});
  EXPECT_EQ(other.exit_code, kExitFailed);
  const Result swapped = Run({"imc", "provision", "web", reg, "--sequence", "3"});
  EXPECT_EQ(swapped.exit_code, kExitDone) << swapped.err;
  EXPECT_THAT(swapped.out, Not(HasSubstr(digest)));
}

TEST_F(CtlTest, ProvisionTakesFilesAboveTheMessageLimit) {
  Run({"vm", "create", "web"});
  const Result small = Run({"imc", "provision", "web", RegFile("WEB-7"), "-o", "json"});
  const Result large = Run({"imc", "provision", "web", RegFile("WEB-7", 9'000'000), "-o", "json"});
  EXPECT_EQ(large.exit_code, kExitDone) << large.err;
  EXPECT_EQ(large.out, small.out);
}

TEST_F(CtlTest, ProvisionNamesTheFileAndPlaceOfAMistake) {
  Run({"vm", "create", "web"});
  const std::string bad =
      File("bad.reg", "Windows Registry Editor Version 5.00\n[-HKLM\\SYSTEM]\n");
  const Result refused = Run({"imc", "provision", "web", bad});
  EXPECT_EQ(refused.exit_code, kExitFailed);
  EXPECT_EQ(refused.out, "");
  EXPECT_THAT(refused.err, StartsWith("vmbfsctl: " + bad + ":2:"));
  EXPECT_THAT(Run({"imc", "provision", "web", "/does/not/exist"}).err,
              StartsWith("vmbfsctl: /does/not/exist: "));
  const Result types = Run(
      {"imc", "provision", "web",
       File("types.reg",
            "Windows Registry Editor Version 5.00\n"
            "[HKLM\\SYSTEM\\CurrentControlSet\\Services\\a]\n\"Start\"=\"2\"\n\"Type\"=\"2\"\n")});
  EXPECT_THAT(types.err, MatchesRegex("vmbfsctl: .*a.Start: .*\nvmbfsctl: .*a.Type: .*\n"));
  EXPECT_EQ(Run({"detach", "web", "imc"}).exit_code, kExitNotFound);
}

TEST_F(CtlTest, FileThatIsNoHiveIsServedWithAWarningUnlessStrict) {
  Run({"vm", "create", "web"});
  const std::string garbage = File("a.hiv", "hive");
  const Result refused = Run({"attach", "web", "imc", "--file", garbage, "--strict"});
  EXPECT_EQ(refused.exit_code, kExitFailed);
  EXPECT_EQ(refused.out, "");
  const Result attached = Run({"attach", "web", "imc", "--file", garbage});
  EXPECT_EQ(attached.exit_code, kExitDone);
  EXPECT_THAT(attached.err, StartsWith("vmbfsctl: warning: not a valid hive: "));
  EXPECT_EQ(Run({"swap", "web", "imc", "--file", garbage, "--strict"}).exit_code, kExitFailed);

  const std::string hive = server_.folder() / "built.hiv";
  RunAlone({"imc", "build", RegFile("WEB-7"), "--output", hive});
  const Result swapped = Run({"swap", "web", "imc", "--file", hive, "--strict"});
  EXPECT_EQ(swapped.exit_code, kExitDone) << swapped.err;
  EXPECT_EQ(swapped.err, "");
}

TEST_F(CtlTest, InspectShowsATree) {
  inspect::Node root;
  root.AddFolder("vms").AddFolder("web").Add("connected", true);
  server_.host().SetTree(root);
  EXPECT_EQ(Run({"inspect", "--depth", "3"}).out, "/\n  vms/\n    web/\n      connected: true\n");
  EXPECT_EQ(Run({"inspect", "vms"}).out, "vms/\n  web/ ...\n");
  EXPECT_EQ(Run({"inspect", "nothing"}).exit_code, kExitNotFound);
}

TEST_F(CtlTest, ServerComesFromTheEnvironmentToo) {
  ::setenv("VMBFS_SERVER", server_.address().c_str(), 1);
  const Result list = RunAlone({"vm", "list"});
  ::unsetenv("VMBFS_SERVER");
  EXPECT_EQ(list.exit_code, kExitDone) << list.err;
}

TEST_F(CtlTest, SilentDaemonTimesOut) {
  server_.host().HoldGetVm(true);
  const Result result = Run({"vm", "get", "web", "--timeout", "0.1"});
  server_.host().HoldGetVm(false);
  EXPECT_EQ(result.exit_code, kExitUnreachable);
  EXPECT_THAT(result.err, HasSubstr("--timeout"));
}

TEST(Ctl, NobodyThereIsUnreachable) {
  const Result result = RunAlone({"--server", "unix:/does/not/exist.sock", "vm", "list"});
  EXPECT_EQ(result.exit_code, kExitUnreachable);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, MatchesRegex("vmbfsctl: cannot reach unix:/does/not/exist.sock: .*"
                                       "is vmbfsd running.*\n"));
}

TEST(Ctl, WrongUsageIsToldApart) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{},
                                             {"vm"},
                                             {"vm", "get"},
                                             {"frobnicate"},
                                             {"vm", "list", "--nonsense"},
                                             {"vm", "list", "-o", "xml"},
                                             {"vm", "list", "--timeout", "0"},
                                             {"vm", "create", "web", "--owner", "me"},
                                             {"attach", "web", "disk", "--file", "x"},
                                             {"attach", "web", "imc"},
                                             {"imc", "provision", "web"},
                                             {"imc", "provision", "web", "x", "--sequence", "-1"},
                                             {"inspect", "--depth", "-1"},
                                             {"--server", "nowhere", "vm", "list"}}) {
    const Result result = RunAlone(arguments);
    EXPECT_EQ(result.exit_code, kExitUsage) << testing::PrintToString(arguments);
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, StartsWith("vmbfsctl: "));
  }
}

TEST(Ctl, HelpAndVersionAreEverywhere) {
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{},
                                             {"vm"},
                                             {"vm", "create"},
                                             {"attach"},
                                             {"detach"},
                                             {"imc", "provision"},
                                             {"inspect"}}) {
    std::vector<std::string> arguments = command;
    arguments.push_back("--help");
    const Result help = RunAlone(arguments);
    EXPECT_EQ(help.exit_code, kExitDone);
    EXPECT_THAT(help.out, HasSubstr("Usage: vmbfsctl"));
    arguments.back() = "--version";
    const Result version = RunAlone(arguments);
    EXPECT_EQ(version.exit_code, kExitDone) << version.err;
    EXPECT_EQ(version.out, "vmbfsctl 0.1.0\n");
  }
}

}  // namespace
}  // namespace vmbfs::ctl
