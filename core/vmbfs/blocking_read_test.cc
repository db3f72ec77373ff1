// Reads that have to wait, and what may happen while they do.

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "core/vmbfs/device_fixture.h"
#include "core/vmbfs/fake_file.h"

namespace vmbfs {
namespace {

class BlockingReadTest : public DeviceTest {
 protected:
  void SetUp() override {
    file_ = std::make_shared<FakeFile>(content_);
    MakeDevice(FileBacking(file_));
    OpenAndAgree();
  }

  // Sends a read and runs the device, which does not answer yet.
  void StartRead(uint32_t count, uint64_t offset) {
    ASSERT_TRUE(Send(ReadBytes(count, offset, u"imc.hiv")));
    RunDevice();
    ASSERT_EQ(Receive(), std::nullopt);
    ASSERT_EQ(runner_.job_count(), 1u);
  }
  void FinishRead() {
    runner_.DoWork();
    runner_.DoDone();
    RunDevice();
  }

  const Bytes content_ = Pattern(40000);
  std::shared_ptr<FakeFile> file_;
};

TEST_F(BlockingReadTest, WhatIsNotAtHandIsReadElsewhereAndAnswered) {
  StartRead(12276, 5);
  runner_.DoWork();
  EXPECT_EQ(Receive(), std::nullopt);
  runner_.DoDone();
  // Outside its turns the device touches no ring: the VM may be paused.
  EXPECT_EQ(Receive(), std::nullopt);
  RunDevice();
  EXPECT_EQ(Receive(), ReadAnswerBytes(0, Range(content_, 5, 12276)));
  EXPECT_EQ(device_->status().blocking_reads, 1u);
  EXPECT_EQ(device_->status().bytes_read, 12276u);
}

TEST_F(BlockingReadTest, FileReadInSequenceIsReadAheadWithItsMisses) {
  const auto read = [&](uint64_t offset) {
    StartRead(100, offset);
    FinishRead();
    EXPECT_TRUE(Receive().has_value());
  };
  read(0);
  file_->at_hand_bytes = 40000;
  EXPECT_NE(Exchange(ReadBytes(100, 100, u"imc.hiv")), Bytes());
  file_->at_hand_bytes = 30;
  read(200);
  read(5000);  // out of sequence
  using Ahead = std::pair<uint64_t, uint64_t>;
  EXPECT_EQ(file_->ahead, (std::vector<Ahead>{{0, 128 << 10}, {230, 256 << 10}}));
}

TEST_F(BlockingReadTest, APartThatIsAtHandIsCompletedToAllThatWasAsked) {
  for (const size_t at_hand : {0u, 1u, 4085u, 4096u, 12275u}) {
    file_->at_hand_bytes = at_hand;
    StartRead(12276, 777);
    FinishRead();
    EXPECT_EQ(Receive(), ReadAnswerBytes(0, Range(content_, 777, 12276))) << at_hand;
  }
  EXPECT_EQ(device_->status().blocking_reads, 5u);
}

TEST_F(BlockingReadTest, AnAnswerIsShortOnlyAtTheEndOfTheFile) {
  file_->at_hand_bytes = 100;
  StartRead(12276, 39800);
  FinishRead();
  EXPECT_EQ(Receive(), ReadAnswerBytes(0, Range(content_, 39800, 200)));

  file_->at_hand_bytes = 200;
  EXPECT_EQ(Exchange(ReadBytes(12276, 39800, u"imc.hiv")),
            ReadAnswerBytes(0, Range(content_, 39800, 200)));
  EXPECT_EQ(runner_.job_count(), 0u);
}

TEST_F(BlockingReadTest, NoRequestIsTakenWhileAReadWaitsAndOrderIsKept) {
  StartRead(10, 0);
  ASSERT_TRUE(Send(InfoBytes(u"imc.hiv")));
  ASSERT_TRUE(Send(ReadBytes(10, 20, u"imc.hiv")));
  // The guest may signal as it likes.
  EXPECT_EQ(device_->Run().value().next, Next::kWaiting);
  EXPECT_EQ(device_->status().info_requests, 0u);
  EXPECT_EQ(Receive(), std::nullopt);

  // The end of the read wakes the device by itself.
  host_awake_ = false;
  runner_.DoWork();
  runner_.DoDone();
  EXPECT_TRUE(host_awake_);
  RunDevice();
  EXPECT_EQ(Receive(), ReadAnswerBytes(0, Range(content_, 0, 10)));
  EXPECT_EQ(Receive(), InfoAnswer(0, 0, 40000));
  FinishRead();
  EXPECT_EQ(Receive(), ReadAnswerBytes(0, Range(content_, 20, 10)));
}

TEST_F(BlockingReadTest, ACloseBeforeTheWorkIsSafe) {
  StartRead(12276, 0);
  Close();
  pair_.reset();
  FinishRead();
  EXPECT_FALSE(device_->status().open);
  EXPECT_EQ(device_->status().bytes_read, 0u);
}

TEST_F(BlockingReadTest, ACloseAndReopenBeforeTheEndLeavesTheNewChannelAlone) {
  StartRead(12276, 0);
  runner_.DoWork();
  Close();
  OpenAndAgree();
  runner_.DoDone();
  RunDevice();
  EXPECT_EQ(Receive(), std::nullopt);
  EXPECT_EQ(Exchange(InfoBytes(u"imc.hiv")), InfoAnswer(0, 0, 40000));
  StartRead(10, 3);
  FinishRead();
  EXPECT_EQ(Receive(), ReadAnswerBytes(0, Range(content_, 3, 10)));
}

TEST_F(BlockingReadTest, TheFileLivesAsLongAsItsReadRuns) {
  const std::weak_ptr<FakeFile> watch = file_;
  StartRead(12276, 0);
  file_.reset();
  Close();
  device_.reset();
  EXPECT_FALSE(watch.expired());
  runner_.DoWork();
  runner_.DoDone();
  EXPECT_TRUE(watch.expired());
}

TEST_F(BlockingReadTest, AReadThatFailsGetsStatus3AndTheChannelGoesOn) {
  file_->read_blocking_error = absl::DataLossError("disk on fire");
  for (const std::optional<size_t> at_hand : {std::optional<size_t>(), std::optional<size_t>(50)}) {
    file_->at_hand_bytes = at_hand;
    StartRead(100, 0);
    FinishRead();
    EXPECT_EQ(Receive(), ReadAnswerBytes(3));
  }
  EXPECT_EQ(device_->status().host_errors, 2u);
  EXPECT_EQ(device_->status().last_host_error, "disk on fire");

  file_->read_blocking_error = absl::OkStatus();
  file_->read_now_error = absl::InternalError("disk");
  EXPECT_EQ(Exchange(ReadBytes(100, 0, u"imc.hiv")), ReadAnswerBytes(3));
  EXPECT_EQ(device_->status().host_errors, 3u);
  EXPECT_EQ(device_->status().bad_requests, 0u);
  EXPECT_EQ(device_->status().bytes_read, 0u);
  EXPECT_EQ(Exchange(InfoBytes(u"imc.hiv")), InfoAnswer(0, 0, 40000));
}

TEST_F(BlockingReadTest, AReadThatTheRunnerGaveUpGetsStatus3) {
  StartRead(100, 0);
  runner_.DoDone();
  RunDevice();
  EXPECT_EQ(Receive(), ReadAnswerBytes(3));
}

TEST_F(BlockingReadTest, WhatIsAnsweredWithStatus3IsReported) {
  std::vector<std::string> reasons;
  device_->SetReporter([&](std::string_view reason) { reasons.emplace_back(reason); });
  Exchange(ReadBytes(12277, 0, u"imc.hiv"));
  file_->read_now_error = absl::InternalError("disk on fire");
  Exchange(ReadBytes(100, 0, u"imc.hiv"));
  Exchange(InfoBytes(u"absent"));
  ASSERT_EQ(reasons.size(), 2u);
  EXPECT_NE(reasons[0].find("12277"), std::string::npos);
  EXPECT_EQ(reasons[1], "disk on fire");
}

TEST_F(BlockingReadTest, AFileThatEndsAheadOfItsSizeIsAHostError) {
  file_->missing_bytes = 1;
  StartRead(100, 0);
  FinishRead();
  EXPECT_EQ(Receive(), ReadAnswerBytes(3));
  EXPECT_EQ(device_->status().host_errors, 1u);
}

TEST_F(BlockingReadTest, TheWorkMayRunOnAnotherThreadWhileTheChannelCloses) {
  StartRead(12276, 0);
  std::thread worker([this] { runner_.DoWork(); });
  Close();
  worker.join();
  runner_.DoDone();

  OpenAndAgree();
  StartRead(12276, 9);
  std::thread([this] { runner_.DoWork(); }).join();
  runner_.DoDone();
  RunDevice();
  EXPECT_EQ(Receive(), ReadAnswerBytes(0, Range(content_, 9, 12276)));
}

}  // namespace
}  // namespace vmbfs
