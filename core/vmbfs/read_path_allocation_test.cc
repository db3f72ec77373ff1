// An ordinary read allocates nothing: what this program allocates is counted.

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <string>

#include "core/allocation_count/allocation_count.h"
#include "core/backing/host_file.h"
#include "core/vmbfs/device_fixture.h"
#include "hyperv/file_descriptor/unique_fd.h"

namespace vmbfs {
namespace {

class ReadPathAllocationTest : public DeviceTest {
 protected:
  // Allocations of a device and a guest that exchange 1,000 reads.
  uint64_t CountOver1000Reads() {
    OpenAndAgree();
    const Bytes request = ReadBytes(12276, 1, u"\\EFI\\..\\.\\imc.hiv");
    Bytes buffer(16384);
    size_t good_answers = 0;
    const uint64_t before = AllocationsOfThisThread();
    for (int i = 0; i < 1000; ++i) {
      EXPECT_TRUE(guest_->Write(request).value());
      RunDevice();
      const auto answer = guest_->Read(buffer);
      good_answers += answer.value().value().size() == 12288 ? 1 : 0;
      guest_->Consume();
    }
    const uint64_t count = AllocationsOfThisThread() - before;
    EXPECT_EQ(good_answers, 1000u);
    EXPECT_EQ(device_->status().blocking_reads, 0u);
    return count;
  }
};

TEST_F(ReadPathAllocationTest, TheCounterCounts) {
  const uint64_t before = AllocationsOfThisThread();
  const auto number = std::make_unique<int>(1);
  EXPECT_EQ(AllocationsOfThisThread() - before, 1u);
}

TEST_F(ReadPathAllocationTest, ReadsOfAMemoryFileAllocateNothing) {
  MakeDevice(MemoryBacking(Pattern(20000)));
  EXPECT_EQ(CountOver1000Reads(), 0u);
}

TEST_F(ReadPathAllocationTest, ReadsOfACachedHostFileAllocateNothing) {
  const Bytes content = Pattern(20000);
  std::string path = testing::TempDir() + "/read_path_XXXXXX";
  hyperv::UniqueFd fd(mkstemp(path.data()));
  unlink(path.c_str());
  ASSERT_EQ(write(fd.get(), content.data(), content.size()), static_cast<ssize_t>(content.size()));
  std::array<std::byte, 1> probe;
  const iovec piece{probe.data(), probe.size()};
  if (preadv2(fd.get(), &piece, 1, 0, RWF_NOWAIT) < 0) {
    GTEST_SKIP() << "this file system knows no RWF_NOWAIT";
  }
  MakeDevice(FileBacking(HostFile::Create(std::move(fd)).value()));
  EXPECT_EQ(CountOver1000Reads(), 0u);
}

}  // namespace
}  // namespace vmbfs
