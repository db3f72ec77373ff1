// The program itself against a link server with a vmbfs device.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/backing/memory_file.h"
#include "core/backing/single_file_backing.h"
#include "core/path/guest_path.h"
#include "core/vmbfs/vmbfs_device.h"
#include "hyperv/link/link_server.h"

namespace vmbfs {
namespace {

using testing::HasSubstr;

// Nothing in memory has to wait; what does is done at once.
class ImmediateRunner final : public BlockingRunner {
 public:
  explicit ImmediateRunner(boost::asio::io_context& context) : context_(context) {}
  void Run(std::function<void()> work, std::function<void()> done) override {
    work();
    boost::asio::post(context_, std::move(done));
  }

 private:
  boost::asio::io_context& context_;
};

struct Outcome {
  int exit_code = -1;
  std::string out;
  std::string err;
};

std::string Content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class VmbfsGuestTest : public testing::Test {
 protected:
  explicit VmbfsGuestTest(size_t hive_bytes = 30'000)
      : folder_(NewFolder()),
        work_(boost::asio::make_work_guard(context_)),
        thread_([this] { context_.run(); }) {
    for (size_t index = 0; index < hive_bytes; ++index) {
      hive_.push_back(static_cast<char>(index * 7 + (index >> 8)));
    }
    const auto bytes = std::as_bytes(std::span(hive_));
    auto backing = std::make_shared<SingleFileBacking>(
        *FileNameFromUtf8("imc.hiv"),
        std::make_shared<MemoryFile>(std::vector<std::byte>(bytes.begin(), bytes.end())), "hive");
    device_ = std::make_shared<VmbfsDevice>(kImcInstanceId, std::move(backing), runner_,
                                            VmbfsDeviceOptions{.rdma_bytes_min = 1 << 20});
    OnStrand([this] {
      server_ = std::make_unique<hyperv::LinkServer>(context_.get_executor());
      hyperv::LinkOptions options;
      options.socket_path = Socket();
      ASSERT_TRUE(server_->Listen(options).ok());
      ASSERT_TRUE(server_->Add(device_).ok());
      server_->Start();
    });
  }

  ~VmbfsGuestTest() override {
    OnStrand([this] {
      server_->Stop();
      server_.reset();
    });
    work_.reset();
    context_.stop();
    thread_.join();
    std::filesystem::remove_all(folder_);
  }

  void OnStrand(const std::function<void()>& call) {
    std::promise<void> done;
    boost::asio::post(context_, [&] {
      call();
      done.set_value();
    });
    done.get_future().wait();
  }

  // Short, since a socket's path is.
  static std::string NewFolder() {
    std::string folder = "/tmp/vmbfs-guest-test-XXXXXX";
    EXPECT_NE(mkdtemp(folder.data()), nullptr);
    return folder;
  }
  std::string Socket() const { return folder_ + "/link.sock"; }

  // Runs the program with these words of the shell behind its name.
  Outcome RunProgram(const std::string& words) const {
    const std::string out = folder_ + "/out";
    const std::string err = folder_ + "/err";
    const std::string command = "tools/vmbfs-guest/vmbfs-guest " + words + " >" + out + " 2>" + err;
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, Content(out), Content(err)};
  }
  Outcome WithLink(const std::string& words) const {
    return RunProgram("--link " + Socket() + " " + words);
  }

  const std::string folder_;
  std::string hive_;
  boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
  ImmediateRunner runner_{context_};
  std::shared_ptr<VmbfsDevice> device_;
  std::unique_ptr<hyperv::LinkServer> server_;
};

TEST_F(VmbfsGuestTest, InfoPrintsSizeAndKindOfThePathAsItWasGiven) {
  for (const std::string path : {"imc.hiv", "\\imc.hiv", "/IMC.hiv", "a\\..\\imc.hiv"}) {
    const Outcome outcome = WithLink("info '" + path + "'");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.out, path + ": file, 30000 bytes\n");
    EXPECT_EQ(outcome.err, "");
  }
  EXPECT_EQ(WithLink("info '\\'").out, "\\: directory\n");
}

TEST_F(VmbfsGuestTest, ReadWritesTheBytesForBothProfiles) {
  for (const std::string profile : {"firmware", "linux"}) {
    const Outcome outcome = WithLink("--profile " + profile + " read imc.hiv");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.out, hive_);
    EXPECT_EQ(outcome.err, "");
  }
}

TEST_F(VmbfsGuestTest, ReadWritesTheBytesForEachVmm) {
  for (const std::string vmm : {"direct", "mediated", "channel"}) {
    const Outcome outcome = WithLink("--vmm " + vmm + " read imc.hiv");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.out, hive_) << vmm;
    OnStrand([this] { EXPECT_FALSE(device_->status().open); });
  }
}

// Two RDMA reads: the firmware asks for 7 MiB at most.
class VmbfsGuestRdmaTest : public VmbfsGuestTest {
 protected:
  static constexpr size_t kFileBytes = 9'000'001;
  VmbfsGuestRdmaTest() : VmbfsGuestTest(kFileBytes) {}

  uint64_t RdmaBytesRead() {
    uint64_t bytes = 0;
    OnStrand([&] { bytes = device_->status().rdma_bytes_read; });
    return bytes;
  }
};

TEST_F(VmbfsGuestRdmaTest, ReadTakesTheWayThatTheDeviceOffers) {
  EXPECT_EQ(WithLink("info imc.hiv").out, "imc.hiv: file, 9000001 bytes, RDMA\n");
  uint64_t bytes = 0;
  for (const std::string vmm : {"direct", "mediated", "channel"}) {
    for (const std::string profile : {"firmware", "linux"}) {
      const Outcome outcome = WithLink("--vmm " + vmm + " --profile " + profile + " read imc.hiv");
      EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
      EXPECT_TRUE(outcome.out == hive_) << vmm << ' ' << profile;
      bytes += kFileBytes;
      EXPECT_EQ(RdmaBytesRead(), bytes);
    }
  }
}

TEST_F(VmbfsGuestRdmaTest, ReadThroughTheRingIsTheSame) {
  const Outcome outcome = WithLink("read imc.hiv --no-rdma");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_TRUE(outcome.out == hive_);
  EXPECT_EQ(RdmaBytesRead(), 0u);
}

TEST_F(VmbfsGuestTest, ReadIntoAFileIsWholeAndSilent) {
  const std::string path = folder_ + "/copy";
  const Outcome outcome = WithLink("read imc.hiv --output " + path);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(Content(path), hive_);
}

TEST_F(VmbfsGuestTest, OptionsMayStandBehindTheSubcommand) {
  EXPECT_EQ(RunProgram("info imc.hiv --timeout 20 --link " + Socket() + " --device imc").exit_code,
            0);
}

TEST_F(VmbfsGuestTest, ChannelIsClosedAndUnloadedAfterwards) {
  ASSERT_EQ(WithLink("info imc.hiv").exit_code, 0);
  OnStrand([this] { EXPECT_FALSE(device_->status().open); });
}

TEST_F(VmbfsGuestTest, MissingFileIsExitCode3AndLeavesNoOutput) {
  const std::string path = folder_ + "/copy";
  const Outcome outcome = WithLink("read none.hiv --output " + path);
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(outcome.err, "vmbfs-guest: none.hiv: not found\n");
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_EQ(WithLink("info none.hiv").exit_code, 3);
  EXPECT_EQ(WithLink("info '..\\imc.hiv'").exit_code, 3);
}

TEST_F(VmbfsGuestTest, WhatTheDeviceRefusesAndLocalErrorsAreExitCode1) {
  EXPECT_EQ(WithLink("read '\\'").exit_code, 1);
  EXPECT_EQ(WithLink("info " + std::string(256, 'a')).exit_code, 1);
  EXPECT_EQ(WithLink("read imc.hiv --output " + folder_ + "/none/copy").exit_code, 1);
  EXPECT_EQ(WithLink("read imc.hiv --output " + folder_).exit_code, 1);
}

TEST_F(VmbfsGuestTest, DeviceThatIsNotOfferedOrALinkThatIsNotThereIsExitCode4) {
  const Outcome not_offered = WithLink("--device boot --timeout 1 info x");
  EXPECT_EQ(not_offered.exit_code, 4);
  EXPECT_THAT(not_offered.err, HasSubstr("was offered in time"));
  const Outcome not_there = RunProgram("--link " + folder_ + "/none --timeout 0.2 info x");
  EXPECT_EQ(not_there.exit_code, 4);
  EXPECT_THAT(not_there.err, HasSubstr("cannot connect"));
}

TEST_F(VmbfsGuestTest, WrongUsageIsExitCode2) {
  for (const std::string words :
       {"", "info imc.hiv", "--link x", "--link x info", "--link x info a b", "--link x erase a",
        "--link x --device disk info a", "--link x --profile dos info a",
        "--link x --vmm qemu info a", "--link x --timeout 0 info a", "--link x --timeout 1h info a",
        "--link x info '\xff'", "--link x --frob info a"}) {
    const Outcome outcome = RunProgram(words);
    EXPECT_EQ(outcome.exit_code, 2) << words;
    EXPECT_EQ(outcome.out, "") << words;
    EXPECT_NE(outcome.err, "") << words;
  }
}

TEST_F(VmbfsGuestTest, VersionAndHelpGoToStdout) {
  EXPECT_EQ(RunProgram("--version").out, "vmbfs-guest 0.1.0\n");
  const Outcome help = RunProgram("--help");
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.out, HasSubstr("--link"));
  EXPECT_THAT(help.out, HasSubstr("--vmm direct|mediated|channel"));
}

}  // namespace
}  // namespace vmbfs
