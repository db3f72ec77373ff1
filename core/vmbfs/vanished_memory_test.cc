// Reads into a ring whose memory vanishes. The system call that copies from the
// page cache into the ring gets no SIGBUS but an error, or stops early.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <string>
#include <tuple>

#include "core/backing/host_file.h"
#include "core/vmbfs/device_fixture.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest_memory/guest_access.h"
#include "hyperv/guest_memory/guest_memory.h"

namespace vmbfs {
namespace {

constexpr uint32_t kReadBytes = 12276;

// A cached file on disk.
std::shared_ptr<const HostFile> CachedFile(const Bytes& content) {
  std::string path = testing::TempDir() + "/vanished_XXXXXX";
  hyperv::UniqueFd fd(::mkstemp(path.data()));
  ::unlink(path.c_str());
  EXPECT_EQ(::write(fd.get(), content.data(), content.size()),
            static_cast<ssize_t>(content.size()));
  return HostFile::Create(std::move(fd)).value();
}

// Which pages of the outgoing ring's data vanish: first, and how many.
class VanishedMemoryTest : public DeviceTest,
                           public testing::WithParamInterface<std::tuple<size_t, size_t>> {
 protected:
  // Lays a file under pages of the ring and cuts it off.
  void TakeAway(size_t first_page, size_t pages) {
    std::array<iovec, 2> pieces;
    ASSERT_EQ(pair_->HostToGuest().Pieces(static_cast<uint32_t>(first_page * hyperv::kPageBytes),
                                          pages * hyperv::kPageBytes, pieces),
              1u);
    const hyperv::UniqueFd memfd(::memfd_create("guest", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(memfd.get(), static_cast<off_t>(pieces[0].iov_len)), 0);
    ASSERT_EQ(::mmap(pieces[0].iov_base, pieces[0].iov_len, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_FIXED, memfd.get(), 0),
              pieces[0].iov_base);
    ASSERT_EQ(::ftruncate(memfd.get(), 0), 0);
    taken_ = pieces[0];
  }
  void TearDown() override {
    if (taken_.iov_len == 0) return;
    Close();
    EXPECT_NE(::mmap(taken_.iov_base, taken_.iov_len, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
              MAP_FAILED);
  }

  iovec taken_{};
};

INSTANTIATE_TEST_SUITE_P(Pages, VanishedMemoryTest,
                         testing::Values(std::tuple(0, 1), std::tuple(1, 1), std::tuple(2, 1),
                                         std::tuple(0, 3), std::tuple(1, 2)));

TEST_P(VanishedMemoryTest, ReadThatMeetsThemIsSeenByTheWatchOfItsTurnAndIsNoHostError) {
  hyperv::InstallVanishedMemoryHandler();
  const Bytes content = Pattern(40000);
  MakeDevice(FileBacking(CachedFile(content)));
  OpenAndAgree();
  const auto [first_page, pages] = GetParam();
  TakeAway(first_page, pages);

  ASSERT_TRUE(Send(ReadBytes(kReadBytes, 0, u"imc.hiv")));
  const hyperv::VanishedMemoryWatch watch;
  RunDevice();
  while (runner_.job_count() > 0) {
    runner_.DoWork();
    runner_.DoDone();
    RunDevice();
  }
  EXPECT_TRUE(watch.vanished());
  EXPECT_EQ(device_->status().host_errors, 0u);
}

}  // namespace
}  // namespace vmbfs
