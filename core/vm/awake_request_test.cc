// What a request costs a data-plane thread while both sides are awake: no allocation,
// no lock and one system call, the preadv2 of its bytes. Counts, not times.
//
// Counted are calls on other threads than the test's own, of the functions that this
// program puts before the library's. What the C library calls inside itself is not
// seen, nor is a system call without a function.

#include <gtest/gtest.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "core/allocation_count/allocation_count.h"
#include "core/host/host_fixture.h"
#include "core/vmbfs/message_bytes.h"
#include "core/vmbfs/vmbfs_device.h"
#include "core/vmbfs_client/vmbfs_client.h"
#include "hyperv/guest/guest.h"
#include "hyperv/spin/spinner.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

namespace {

struct Counts {
  std::atomic<uint64_t> locks = 0;
  std::atomic<uint64_t> reads_of_files = 0;  // preadv2
  std::atomic<uint64_t> polls = 0;           // epoll_wait
  std::atomic<uint64_t> others = 0;          // read, write, poll, sendmsg, recvmsg
};

constinit Counts counts;
constinit thread_local bool counted = true;

void Count(std::atomic<uint64_t>& counter) {
  if (counted) counter.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

extern "C" {

ssize_t preadv2(int fd, const iovec* pieces, int count, off_t offset, int flags) {
  Count(counts.reads_of_files);
  return ::syscall(SYS_preadv2, fd, pieces, count, offset, 0, flags);
}
int epoll_wait(int epoll, epoll_event* events, int count, int timeout_ms) {
  Count(counts.polls);
  return static_cast<int>(::syscall(SYS_epoll_pwait, epoll, events, count, timeout_ms, nullptr, 0));
}
ssize_t read(int fd, void* bytes, size_t count) {
  Count(counts.others);
  return ::syscall(SYS_read, fd, bytes, count);
}
ssize_t write(int fd, const void* bytes, size_t count) {
  Count(counts.others);
  return ::syscall(SYS_write, fd, bytes, count);
}
int poll(pollfd* descriptors, nfds_t count, int timeout_ms) {
  Count(counts.others);
  const timespec time{.tv_sec = timeout_ms / 1000, .tv_nsec = timeout_ms % 1000 * 1'000'000};
  return static_cast<int>(
      ::syscall(SYS_ppoll, descriptors, count, timeout_ms < 0 ? nullptr : &time, nullptr, 0));
}
int pthread_mutex_lock(pthread_mutex_t* mutex) {
  Count(counts.locks);
  // The library's own is not to be had by this name any more.
  if (::pthread_mutex_trylock(mutex) == 0) return 0;
  const timespec never{.tv_sec = INT64_MAX, .tv_nsec = 0};
  return ::pthread_mutex_timedlock(mutex, &never);
}

}  // extern "C"

namespace vmbfs {
namespace {

constexpr uint64_t kReads = 2000;
constexpr uint32_t kReadBytes = 12276;

class AwakeRequestTest : public HostFixture {
 protected:
  void SetUp() override {
    counted = false;
    HostFixture::SetUp();
    options_.data_plane_threads = 1;
    options_.spin_us = 1'000'000;
    options_.spin_percent = 100;
    Restart();
    ASSERT_TRUE(host_->CreateVm("vm", {}).ok());
    ASSERT_TRUE(host_->Attach("vm", DeviceKind::kImc, Upload(std::string(100'000, 'x'))).ok());
    hyperv::GuestOptions options;
    options.socket_path = host_->GetVm("vm")->link_path;
    options.profile = hyperv::GuestProfile::kLinux;  // masks its ring while it reads
    guest_ = hyperv::Guest::Start(options).value();
    ASSERT_TRUE(guest_->Connect().ok());
    const auto offer = guest_->WaitForOffer(kVmbfsInterfaceId, kImcInstanceId);
    channel_ = guest_->Open(offer.value()).value();
    VmbfsClient client(*channel_);
    ASSERT_TRUE(client.Negotiate().value_or(false));
    // The signal that comes 100 ms after an open is over then.
    std::this_thread::sleep_for(std::chrono::milliseconds{150});
  }
  void TearDown() override {
    channel_.reset();
    guest_.reset();
    HostFixture::TearDown();
  }

  // The guest looks for its answer and never sleeps.
  void Read() {
    ASSERT_TRUE(channel_->pipe().Write(request_).value());
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{30};
    while (std::chrono::steady_clock::now() < deadline) {
      const auto answer = channel_->pipe().Read(buffer_).value();
      if (!answer.has_value()) continue;
      channel_->pipe().Consume();
      ASSERT_EQ(answer->size(), kReadBytes + 12);
      return;
    }
    FAIL() << "no answer";
  }

  std::unique_ptr<hyperv::Guest> guest_;
  std::unique_ptr<hyperv::GuestChannel> channel_;
  const Bytes request_ = ReadBytes(kReadBytes, 4096, u"imc.hiv");
  Bytes buffer_ = Bytes(16384);
};

TEST_F(AwakeRequestTest, ARequestCostsNoAllocationNoLockAndOneSystemCall) {
  for (int i = 0; i < 10; ++i) Read();
  if (Seen("vms/vm/devices/imc/blocking_reads") != "0") {
    GTEST_SKIP() << "this file system knows no RWF_NOWAIT";
  }
  std::this_thread::sleep_for(std::chrono::milliseconds{20});  // the questions are over
  const uint64_t allocations = AllocationsOfOtherThreads();
  const uint64_t locks = counts.locks;
  const uint64_t reads_of_files = counts.reads_of_files;
  const uint64_t polls = counts.polls;
  const uint64_t others = counts.others;
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t i = 0; i < kReads; ++i) Read();
  const auto took = std::chrono::steady_clock::now() - begin;
  const uint64_t polls_made = counts.polls - polls;

  EXPECT_EQ(AllocationsOfOtherThreads() - allocations, 0u);
  EXPECT_EQ(counts.reads_of_files - reads_of_files, kReads);
  EXPECT_EQ(counts.others - others, 0u);
  // The io_context is polled after so many requests, or after so long.
  const auto intervals = static_cast<uint64_t>(took / hyperv::Spinner::kPollInterval);
  EXPECT_LE(polls_made, kReads / hyperv::Spinner::kRequestsPerPoll + intervals + 2);
  EXPECT_GE(polls_made, kReads / hyperv::Spinner::kRequestsPerPoll);
  // Its locks are taken then and at no other time.
  EXPECT_LE(counts.locks - locks, 6 * (polls_made + 1));
}

TEST_F(AwakeRequestTest, TheCountersCount) {
  const uint64_t before[] = {AllocationsOfOtherThreads(), counts.locks, counts.polls};
  std::thread([] {
    const auto number = std::make_unique<int>(1);
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mutex);
    pthread_mutex_unlock(&mutex);
  }).join();
  Read();
  EXPECT_GT(AllocationsOfOtherThreads(), before[0]);
  EXPECT_GT(counts.locks, before[1]);
  std::this_thread::sleep_for(std::chrono::milliseconds{5});
  EXPECT_GT(counts.polls, before[2]);
}

}  // namespace
}  // namespace vmbfs

#endif
