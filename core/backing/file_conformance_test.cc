#include "core/backing/file_conformance.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/backing/host_file.h"
#include "core/backing/memory_file.h"
#include "hyperv/file_descriptor/unique_fd.h"

namespace vmbfs {
namespace {

std::shared_ptr<const File> HostFileOf(hyperv::UniqueFd fd, std::span<const std::byte> bytes) {
  EXPECT_EQ(write(fd.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  return HostFile::Create(std::move(fd)).value();
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, FileConformanceTest,
    testing::Values(FileKind{"Memory",
                             [](std::span<const std::byte> bytes) {
                               return std::make_shared<MemoryFile>(
                                   std::vector(bytes.begin(), bytes.end()));
                             }},
                    FileKind{"HostDisk",
                             [](std::span<const std::byte> bytes) {
                               std::string path = testing::TempDir() + "/host_file_XXXXXX";
                               hyperv::UniqueFd fd(mkstemp(path.data()));
                               unlink(path.c_str());
                               return HostFileOf(std::move(fd), bytes);
                             }},
                    // Knows no RWF_NOWAIT on today's kernels.
                    FileKind{"HostMemfd",
                             [](std::span<const std::byte> bytes) {
                               return HostFileOf(
                                   hyperv::UniqueFd(memfd_create("file", MFD_CLOEXEC)), bytes);
                             }}),
    [](const testing::TestParamInfo<FileKind>& kind) { return kind.param.name; });

}  // namespace
}  // namespace vmbfs
