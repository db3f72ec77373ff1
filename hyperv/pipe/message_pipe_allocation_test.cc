// The way of a read allocates nothing: operator new is counted.

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "hyperv/channel/channel_pair.h"
#include "hyperv/pipe/message_pipe.h"

namespace {

std::atomic<size_t> allocations = 0;

}  // namespace

void* operator new(size_t bytes) {
  ++allocations;
  void* memory = std::malloc(bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace vmbfs::hyperv {
namespace {

class AllocationTest : public ::testing::TestWithParam<PageLayout> {};

TEST_P(AllocationTest, AThousandExchangesAllocateNothing) {
  ChannelPair pair({.layout = GetParam()});
  auto host_channel = pair.OpenHost();
  auto guest_channel = pair.OpenGuest();
  ASSERT_TRUE(host_channel.ok() && guest_channel.ok());
  MessagePipe host(*std::move(host_channel));
  MessagePipe guest(*std::move(guest_channel));
  std::array<std::byte, 12288> buffer{};

  int completed = 0;
  const size_t before = allocations;
  for (int i = 0; i < 1000; ++i) {
    const bool sent = *guest.Write(std::span(buffer).first(40));
    const auto request = host.Read(buffer);
    const auto reply = host.Reserve(12288);
    if (!sent || !request.ok() || !request->has_value() || !reply.ok() || !reply->has_value())
      break;
    for (const iovec& piece : (*reply)->span()) std::memset(piece.iov_base, i, piece.iov_len);
    host.Send(12288);
    host.Consume();
    const bool host_sleeps = !*host.ArmRead();
    const auto answer = guest.Read(buffer);
    guest.Consume();
    const bool guest_sleeps = !*guest.ArmRead();
    if (!host_sleeps || !guest_sleeps || !answer.ok() || !answer->has_value()) break;
    ++completed;
  }
  const size_t after = allocations;
  EXPECT_EQ(completed, 1000);
  EXPECT_EQ(after - before, 0u);
  EXPECT_GT(before, 0u);  // the counter counts
}

INSTANTIATE_TEST_SUITE_P(Layouts, AllocationTest, ::testing::ValuesIn(kPageLayouts));

}  // namespace
}  // namespace vmbfs::hyperv
