// RDMA reads: from a file into the pages that a guest registered, a slice a turn.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "core/vmbfs/device_fixture.h"
#include "core/vmbfs/fake_file.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest_memory/guest_access.h"
#include "hyperv/guest_memory/guest_memory.h"

namespace vmbfs {
namespace {

constexpr uint32_t kMebibyte = 1 << 20;
constexpr uint64_t kMemoryBytes = 16 * kMebibyte;
constexpr uint32_t kHandle = 1;
constexpr uint32_t kOffset = 0x123;  // of a buffer in its first page
constexpr std::byte kUntouched{0xA5};

class RdmaReadTest : public DeviceTest {
 protected:
  RdmaReadTest() {
    hyperv::UniqueFd fd(::memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_EQ(::ftruncate(fd.get(), kMemoryBytes), 0);
    EXPECT_EQ(::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
    bytes_ = static_cast<std::byte*>(
        ::mmap(nullptr, kMemoryBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
    Forget();
    EXPECT_TRUE(memory_.AddRegion({.id = 1, .bytes = kMemoryBytes}, std::move(fd)).ok());
    options_.memory = &memory_;
  }
  ~RdmaReadTest() override { ::munmap(bytes_, kMemoryBytes); }

  void Serve(std::shared_ptr<const File> file) {
    device_ = std::make_unique<VmbfsDevice>(kImcInstanceId, FileBacking(std::move(file)), runner_,
                                            VmbfsDeviceOptions{.rdma_bytes_min = 1});
    OpenAndAgree();
  }
  void Serve(const Bytes& content) { Serve(std::make_shared<MemoryFile>(content)); }

  void Forget() { std::fill_n(bytes_, kMemoryBytes, kUntouched); }

  // The page frames of a buffer, none beside the next.
  static std::vector<uint64_t> Scattered(size_t pages) {
    std::vector<uint64_t> frames;
    for (size_t page = 0; page < pages; ++page) frames.push_back(2 * page + 1);
    return frames;
  }

  // As the firmware does it: no signal of its own.
  void Register(const std::vector<uint64_t>& frames, uint32_t byte_count, bool writable = true,
                uint32_t handle = kHandle) {
    Bytes words;
    for (const uint64_t frame : frames) words = Join({words, LittleEndian(frame, 8)});
    SendDeferred(
        Join({LittleEndian(3, 4), LittleEndian(17 + words.size(), 4), LittleEndian(handle, 4),
              LittleEndian(writable ? 1 : 0, 1), LittleEndian(1, 4), LittleEndian(byte_count, 4),
              LittleEndian(kOffset, 4), words}));
  }
  void SendDeferred(const Bytes& payload) {
    hyperv::OutgoingRing& ring = guest_->channel().outgoing();
    ASSERT_TRUE(*ring.Reserve(payload.size()));
    ring.CopyIn(0, payload);
    ring.Commit(payload.size());
    if (ring.Publish()) host_awake_ = true;
  }

  // What the buffer of these pages holds.
  Bytes Buffer(const std::vector<uint64_t>& frames, size_t bytes) const {
    Bytes out;
    for (const uint64_t frame : frames) {
      out.insert(out.end(), bytes_ + frame * 4096, bytes_ + (frame + 1) * 4096);
    }
    return Range(out, kOffset, bytes);
  }
  size_t TouchedBytes() const {
    return kMemoryBytes -
           static_cast<size_t>(std::count(bytes_, bytes_ + kMemoryBytes, kUntouched));
  }

  std::byte* bytes_ = nullptr;
  hyperv::GuestMemory memory_;
};

// Bytes none of which looks untouched.
Bytes Content(size_t count) {
  Bytes content = Pattern(count);
  std::replace(content.begin(), content.end(), kUntouched, std::byte{0});
  return content;
}

TEST_F(RdmaReadTest, SevenMebibytesGoExactlyWhereTheyBelong) {
  const Bytes content = Content(8 * kMebibyte);
  Serve(content);
  constexpr uint32_t kBytes = 7 * kMebibyte;
  const auto frames = Scattered(kBytes / 4096 + 1);
  Register(frames, kBytes);
  EXPECT_EQ(Exchange(RdmaBytes(kHandle, kBytes, 777, 0, u"imc.hiv")), RdmaAnswer(0, kBytes));
  EXPECT_EQ(Buffer(frames, kBytes), Range(content, 777, kBytes));
  EXPECT_EQ(TouchedBytes(), kBytes);
  EXPECT_EQ(device_->status().rdma_bytes_read, kBytes);
}

TEST_F(RdmaReadTest, ATurnEndsAfterASlice) {
  Serve(Content(kMebibyte));
  const auto frames = Scattered(257);
  Register(frames, kMebibyte);
  ASSERT_TRUE(Send(RdmaBytes(kHandle, kMebibyte, 0, 0, u"imc.hiv")));
  RunDeviceOnce();
  EXPECT_EQ(TouchedBytes(), 0u) << "the turn of the request";
  for (size_t turn = 1; turn <= 4; ++turn) {
    EXPECT_FALSE(Receive().has_value());
    RunDeviceOnce();
    EXPECT_EQ(TouchedBytes(), turn * 256 * 1024);
  }
  EXPECT_EQ(Receive(), RdmaAnswer(0, kMebibyte));
}

TEST_F(RdmaReadTest, TokenOffsetIsWhereInTheBufferItBegins) {
  const Bytes content = Content(100);
  Serve(content);
  const auto frames = Scattered(3);
  Register(frames, 8192);
  EXPECT_EQ(Exchange(RdmaBytes(kHandle, 10, 5, 4000, u"imc.hiv")), RdmaAnswer(0, 10));
  EXPECT_EQ(Range(Buffer(frames, 8192), 4000, 10), Range(content, 5, 10));
  EXPECT_EQ(TouchedBytes(), 10u);
}

TEST_F(RdmaReadTest, EndsAndEmptyReadsAreAnsweredAsTheTableSays) {
  const Bytes content = Content(5000);
  Serve(content);
  const auto frames = Scattered(3);
  Register(frames, 8192);
  EXPECT_EQ(Exchange(InfoBytes(u"imc.hiv")), InfoAnswer(0, 2, 5000));
  EXPECT_EQ(Exchange(RdmaBytes(kHandle, 0, 0, 0, u"imc.hiv")), RdmaAnswer(0, 0));
  EXPECT_EQ(Exchange(RdmaBytes(kHandle, 1, 5000, 0, u"imc.hiv")), RdmaAnswer(2, 0));
  EXPECT_EQ(Exchange(RdmaBytes(kHandle, 1, 0, 0, u"missing")), RdmaAnswer(1, 0));
  EXPECT_EQ(Exchange(RdmaBytes(kHandle, 1, 0, 0, u"\\")), RdmaAnswer(3, 0));
  EXPECT_EQ(TouchedBytes(), 0u);
  EXPECT_EQ(Exchange(RdmaBytes(kHandle, 8192, 4990, 0, u"imc.hiv")), RdmaAnswer(0, 10));
  EXPECT_EQ(TouchedBytes(), 10u);
}

TEST_F(RdmaReadTest, ABufferThatIsNotWhatItHasToBeIsRefusedAndNotWritten) {
  Serve(Content(kMebibyte));
  Register(Scattered(3), 8192);
  Register(Scattered(3), 8192, false, 2);
  const std::vector<Bytes> requests = {
      RdmaBytes(9, 100, 0, 0, u"imc.hiv"),           // unknown
      RdmaBytes(2, 100, 0, 0, u"imc.hiv"),           // read-only
      RdmaBytes(kHandle, 8193, 0, 0, u"imc.hiv"),    // too large
      RdmaBytes(kHandle, 100, 0, 8093, u"imc.hiv"),  // across its end
      RdmaBytes(kHandle, 100, 0, ~0ull - 50, u"imc.hiv"),
      // Its bytes would fit, but more was asked for.
      RdmaBytes(kHandle, 8193, kMebibyte - 10, 0, u"imc.hiv"),
  };
  for (const Bytes& request : requests) EXPECT_EQ(Exchange(request), RdmaAnswer(3, 0));
  EXPECT_EQ(TouchedBytes(), 0u);
  EXPECT_EQ(device_->status().bad_requests, requests.size());
  EXPECT_EQ(Exchange(RdmaBytes(kHandle, 8192, 0, 0, u"imc.hiv")), RdmaAnswer(0, 8192));
}

TEST_F(RdmaReadTest, PagesThatAreNoMemoryAreFoundBeforeAnythingIsWritten) {
  Serve(Content(kMebibyte));
  auto frames = Scattered(257);
  frames.back() = kMemoryBytes / 4096;
  Register(frames, kMebibyte);
  EXPECT_EQ(Exchange(RdmaBytes(kHandle, kMebibyte, 0, 0, u"imc.hiv")), RdmaAnswer(3, 0));
  EXPECT_EQ(TouchedBytes(), 0u);
}

TEST_F(RdmaReadTest, MemoryThatIsTakenOutMeanwhileEndsTheRead) {
  Serve(Content(kMebibyte));
  Register(Scattered(257), kMebibyte);
  ASSERT_TRUE(Send(RdmaBytes(kHandle, kMebibyte, 0, 0, u"imc.hiv")));
  RunDeviceOnce();
  RunDeviceOnce();
  ASSERT_TRUE(memory_.RemoveRegion(1).ok());
  RunDevice();
  EXPECT_EQ(Receive(), RdmaAnswer(3, 0));
  EXPECT_EQ(TouchedBytes(), 256u * 1024);
}

// The parameter: whether the bytes come from the disk.
class RdmaVanishedMemoryTest : public RdmaReadTest, public testing::WithParamInterface<bool> {};

INSTANTIATE_TEST_SUITE_P(Sources, RdmaVanishedMemoryTest, testing::Bool());

TEST_P(RdmaVanishedMemoryTest, LostBytesAreNotAnsweredFor) {
  hyperv::InstallVanishedMemoryHandler();
  hyperv::UniqueFd fd(::memfd_create("guest", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(fd.get(), kMemoryBytes), 0);
  hyperv::GuestMemory memory({.allow_unsealed = true});
  ASSERT_TRUE(
      memory.AddRegion({.id = 1, .bytes = kMemoryBytes}, hyperv::UniqueFd(::dup(fd.get()))).ok());
  options_.memory = &memory;
  const auto file = std::make_shared<FakeFile>(Content(300'000));
  file->at_hand_bytes = GetParam() ? 0 : 300'000;
  Serve(file);
  std::vector<uint64_t> frames(74);
  std::iota(frames.begin(), frames.end(), uint64_t{0});
  Register(frames, 300'000);
  ASSERT_TRUE(Send(RdmaBytes(kHandle, 300'000, 0, 0, u"imc.hiv")));
  ASSERT_EQ(::ftruncate(fd.get(), 0), 0);

  absl::Status fault;
  for (int turn = 0; turn < 10 && fault.ok(); ++turn) {
    fault = device_->Run().status();
    if (runner_.job_count() == 0) continue;
    runner_.DoWork();
    runner_.DoDone();
  }
  EXPECT_EQ(fault.code(), absl::StatusCode::kFailedPrecondition) << fault;
  EXPECT_FALSE(Receive().has_value());
  EXPECT_FALSE(memory.CheckPages(frames).ok());
  Close();
  options_.memory = &memory_;
}

TEST_F(RdmaReadTest, ATurnThatTakesWhatTheDiskBroughtDoesNoOtherSlice) {
  const auto file = std::make_shared<FakeFile>(Content(600'000));
  file->at_hand_bytes = 0;
  Serve(file);
  Register(Scattered(147), 600'000);
  ASSERT_TRUE(Send(RdmaBytes(kHandle, 600'000, 0, 0, u"imc.hiv")));
  RunDevice();
  ASSERT_EQ(runner_.job_count(), 1u);
  runner_.DoWork();
  runner_.DoDone();
  file->at_hand_bytes = 600'000;
  RunDeviceOnce();
  EXPECT_LE(TouchedBytes(), 256u * 1024);
}

TEST_F(RdmaReadTest, ATearDownBehindTheRequestWaitsForIt) {
  const Bytes content = Content(kMebibyte);
  Serve(content);
  const auto frames = Scattered(257);
  Register(frames, kMebibyte);
  ASSERT_TRUE(Send(RdmaBytes(kHandle, kMebibyte, 0, 0, u"imc.hiv")));
  SendDeferred(Join({LittleEndian(4, 4), LittleEndian(4, 4), LittleEndian(kHandle, 4)}));
  RunDevice();
  EXPECT_EQ(Receive(), RdmaAnswer(0, kMebibyte));
  EXPECT_EQ(Buffer(frames, kMebibyte), content);
  EXPECT_EQ(Exchange(RdmaBytes(kHandle, 1, 0, 0, u"imc.hiv")), RdmaAnswer(3, 0));
}

TEST_F(RdmaReadTest, WhatWaitsForTheDiskIsReadElsewhereSliceBySlice) {
  const Bytes content = Content(600'000);
  const auto file = std::make_shared<FakeFile>(content);
  file->at_hand_bytes = 0;
  Serve(file);
  const auto frames = Scattered(147);
  Register(frames, 600'000);
  ASSERT_TRUE(Send(RdmaBytes(kHandle, 600'000, 0, 0, u"imc.hiv")));
  for (int slice = 0; slice < 3; ++slice) {
    RunDevice();
    ASSERT_EQ(runner_.job_count(), 1u);
    runner_.DoWork();
    const size_t touched_before = TouchedBytes();
    runner_.DoDone();
    EXPECT_EQ(TouchedBytes(), touched_before) << "memory is written in turns only";
  }
  RunDevice();
  EXPECT_EQ(Receive(), RdmaAnswer(0, 600'000));
  EXPECT_EQ(Buffer(frames, 600'000), content);
  EXPECT_EQ(device_->status().blocking_reads, 3u);
  ASSERT_EQ(file->ahead.size(), 3u);
  EXPECT_EQ(file->ahead[0], (std::pair<uint64_t, uint64_t>(0, 600'000)));
}

TEST_F(RdmaReadTest, ADiskThatFailsIsStatus3) {
  const auto file = std::make_shared<FakeFile>(Content(5000));
  file->read_now_error = absl::InternalError("broken disk");
  Serve(file);
  Register(Scattered(2), 4096);
  EXPECT_EQ(Exchange(RdmaBytes(kHandle, 100, 0, 0, u"imc.hiv")), RdmaAnswer(3, 0));
  EXPECT_EQ(device_->status().last_host_error, "broken disk");
  file->read_now_error = absl::OkStatus();
  file->at_hand_bytes = 5000;
  EXPECT_EQ(Exchange(RdmaBytes(kHandle, 100, 0, 0, u"imc.hiv")), RdmaAnswer(0, 100));
}

TEST_F(RdmaReadTest, ChannelThatClosesInItsMidstIsLeftAlone) {
  const auto file = std::make_shared<FakeFile>(Content(600'000));
  Serve(file);
  Register(Scattered(147), 600'000);
  ASSERT_TRUE(Send(RdmaBytes(kHandle, 600'000, 0, 0, u"imc.hiv")));
  RunDevice();
  ASSERT_EQ(runner_.job_count(), 1u);
  runner_.DoWork();
  Close();
  runner_.DoDone();
  EXPECT_EQ(TouchedBytes(), 0u);
}

}  // namespace
}  // namespace vmbfs
