#include "tests/real_guest/pc/linux_boot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

namespace vmbfs::test_vmm {
namespace {

constexpr uint64_t kMebibyte = uint64_t{1} << 20;
constexpr size_t kHeaderOffset = 0x1f1;
constexpr size_t kCodeOffset = 2 * 512;  // one setup sector

// The smallest file that is a kernel of 64 bits.
class LinuxBootTest : public testing::Test {
 protected:
  LinuxBootTest() {
    header_.setup_sects = 1;
    header_.boot_flag = 0xaa55;
    header_.jump = static_cast<uint16_t>((sizeof(header_) - 0x11) << 8 | 0xeb);
    header_.header = 0x53726448;
    header_.version = 0x020f;
    header_.xloadflags = 1;
    header_.initrd_addr_max = 0x7fffffff;
    header_.cmdline_size = 2047;
    header_.pref_address = 16 * kMebibyte;
    header_.init_size = 1 * kMebibyte;
  }

  std::vector<std::byte> File() const {
    std::vector<std::byte> file(kCodeOffset + 0x201, std::byte{0xc0});
    std::memcpy(&file[kHeaderOffset], &header_, sizeof(header_));
    return file;
  }
  absl::Status Parse() const { return ParseBzImage(File()).status(); }
  absl::StatusOr<BootEntry> Place(size_t initrd_bytes = 5000) {
    const std::vector<std::byte> initrd(initrd_bytes, std::byte{0x1d});
    return PlaceLinux(memory_, *ParseBzImage(File()), initrd, "quiet", 1);
  }
  boot_params Parameters(const BootEntry& entry) const {
    boot_params parameters;
    std::memcpy(&parameters, &memory_[entry.boot_parameters], sizeof(parameters));
    return parameters;
  }

  setup_header header_{};
  std::vector<std::byte> memory_ = std::vector<std::byte>(kMemoryBytesMin);
};

TEST_F(LinuxBootTest, KernelIsWhatFollowsTheSetupSectors) {
  const absl::StatusOr<LinuxKernel> kernel = ParseBzImage(File());
  ASSERT_TRUE(kernel.ok()) << kernel.status();
  EXPECT_EQ(kernel->code.size(), 0x201u);
  EXPECT_THAT(kernel->code, testing::Each(std::byte{0xc0}));
  EXPECT_EQ(kernel->header.init_size, 1 * kMebibyte);
}

TEST_F(LinuxBootTest, EveryTruncationIsRefused) {
  const std::vector<std::byte> file = File();
  for (size_t bytes = 0; bytes < file.size(); ++bytes) {
    EXPECT_FALSE(ParseBzImage(std::span(file).first(bytes)).ok()) << bytes;
  }
}

TEST_F(LinuxBootTest, WhatIsNoKernelOf64BitsIsRefused) {
  const setup_header good = header_;
  header_.boot_flag = 0;
  EXPECT_FALSE(Parse().ok());
  header_ = good;
  header_.header = 0;
  EXPECT_FALSE(Parse().ok());
  header_ = good;
  header_.version = 0x020b;
  EXPECT_FALSE(Parse().ok());
  header_ = good;
  header_.xloadflags = 0;
  EXPECT_FALSE(Parse().ok());
  header_ = good;
  header_.setup_sects = 0xff;
  EXPECT_FALSE(Parse().ok());
}

TEST_F(LinuxBootTest, KernelLearnsWhereItsInitrdAndOptionsAre) {
  const absl::StatusOr<BootEntry> entry = Place();
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->instruction, 16 * kMebibyte + 0x200);
  EXPECT_EQ(memory_[entry->instruction], std::byte{0xc0});
  const boot_params parameters = Parameters(*entry);
  EXPECT_EQ(parameters.hdr.ramdisk_size, 5000u);
  EXPECT_GE(parameters.hdr.ramdisk_image, 17 * kMebibyte);
  EXPECT_EQ(parameters.hdr.ramdisk_image % 4096, 0u);
  EXPECT_EQ(memory_[parameters.hdr.ramdisk_image + 4999], std::byte{0x1d});
  EXPECT_STREQ(reinterpret_cast<const char*>(&memory_[parameters.hdr.cmd_line_ptr]), "quiet");
  EXPECT_EQ(parameters.e820_entries, 2);
  EXPECT_EQ(parameters.e820_table[1].addr + parameters.e820_table[1].size, memory_.size());
  EXPECT_EQ(std::memcmp(&memory_[parameters.acpi_rsdp_addr], "RSD PTR ", 8), 0);
}

TEST_F(LinuxBootTest, HeaderThatAsksForMoreThanThereIsIsRefused) {
  const setup_header good = header_;
  for (const uint64_t address :
       {uint64_t{0}, uint64_t{0x9000}, kMemoryBytesMin, ~uint64_t{0}, kMemoryBytesMin - 4096}) {
    header_.pref_address = address;
    EXPECT_FALSE(Place().ok()) << address;
  }
  header_ = good;
  header_.init_size = 0xffffffff;
  EXPECT_FALSE(Place().ok());
  header_ = good;
  header_.initrd_addr_max = 0;
  EXPECT_FALSE(Place().ok());
  header_ = good;
  header_.cmdline_size = 4;
  EXPECT_FALSE(Place().ok());
}

TEST_F(LinuxBootTest, InitrdMayFillWhatTheKernelLeavesAndNoMore) {
  const size_t room = kMemoryBytesMin - 17 * kMebibyte;
  EXPECT_TRUE(Place(room).ok());
  EXPECT_FALSE(Place(room + 1).ok());
}

}  // namespace
}  // namespace vmbfs::test_vmm
