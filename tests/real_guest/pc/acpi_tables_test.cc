#include "tests/real_guest/pc/acpi_tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <span>
#include <string_view>

namespace vmbfs::test_vmm {
namespace {

constexpr uint64_t kGpa = 0xe0000;

class AcpiTablesTest : public testing::Test {
 protected:
  template <typename Value>
  Value At(uint64_t gpa) const {
    Value value{};
    EXPECT_LE(gpa - kGpa + sizeof(value), tables_.size());
    std::memcpy(&value, &tables_[gpa - kGpa], sizeof(value));
    return value;
  }
  std::string_view Text(uint64_t gpa, size_t bytes) const {
    return {reinterpret_cast<const char*>(&tables_[gpa - kGpa]), bytes};
  }
  uint8_t Sum(uint64_t gpa, size_t bytes) const {
    const auto range = std::span(tables_).subspan(gpa - kGpa, bytes);
    return std::accumulate(range.begin(), range.end(), uint8_t{0}, [](uint8_t sum, std::byte byte) {
      return static_cast<uint8_t>(sum + std::to_integer<uint8_t>(byte));
    });
  }
  // A table whose signature, length and sum are right.
  void ExpectTable(uint64_t gpa, std::string_view signature, uint32_t bytes) const {
    EXPECT_EQ(Text(gpa, 4), signature);
    EXPECT_EQ(At<uint32_t>(gpa + 4), bytes) << signature;
    EXPECT_EQ(Sum(gpa, bytes), 0) << signature;
  }

  const std::vector<std::byte> tables_ = MakeAcpiTables(kGpa, 2);
  const uint64_t xsdt_ = At<uint64_t>(kGpa + 24);
  const uint64_t fadt_ = At<uint64_t>(xsdt_ + 36);
  const uint64_t madt_ = At<uint64_t>(xsdt_ + 44);
  const uint64_t dsdt_ = At<uint64_t>(fadt_ + 140);
};

TEST_F(AcpiTablesTest, EveryTableIsFoundFromTheRootAndSumsToZero) {
  EXPECT_EQ(Text(kGpa, 8), "RSD PTR ");
  EXPECT_EQ(Sum(kGpa, 20), 0);
  EXPECT_EQ(Sum(kGpa, 36), 0);
  ExpectTable(xsdt_, "XSDT", 52);
  ExpectTable(fadt_, "FACP", 268);
  ExpectTable(madt_, "APIC", 44 + 2 * 8 + 12);
  ExpectTable(dsdt_, "DSDT", 36 + 49);
  const uint32_t facs = At<uint32_t>(fadt_ + 36);
  EXPECT_EQ(Text(facs, 4), "FACS");
  EXPECT_EQ(facs % 64, 0u);
}

TEST_F(AcpiTablesTest, FadtNamesThePortsThatTheMachineHas) {
  EXPECT_EQ(At<uint32_t>(fadt_ + 56), 0x600u);
  EXPECT_EQ(At<uint32_t>(fadt_ + 64), 0x604u);
  EXPECT_EQ(At<uint64_t>(fadt_ + 120), 0x64u);
  EXPECT_EQ(At<uint8_t>(fadt_ + 128), 0xfe);
  EXPECT_EQ(At<uint32_t>(fadt_ + 40), dsdt_);
}

TEST_F(AcpiTablesTest, MadtHasEveryProcessorAndTheIoApic) {
  for (uint8_t processor = 0; processor < 2; ++processor) {
    const uint64_t entry = madt_ + 44 + 8 * processor;
    EXPECT_EQ(At<uint16_t>(entry), 0x0800);
    EXPECT_EQ(At<uint8_t>(entry + 3), processor);
    EXPECT_EQ(At<uint32_t>(entry + 4), 1u);
  }
  EXPECT_EQ(At<uint32_t>(madt_ + 44 + 16 + 4), 0xfec00000u);
}

// What iasl -f makes of the source beside the bytes.
TEST_F(AcpiTablesTest, DsdtIsWhatAnAssemblerMakes) {
  using namespace std::string_literals;
  const std::string expected =
      "\x08_S5_\x12\x07\x04\x0a\x05\x00\x00\x00"s
      "\x10\x23_SB_\x5b\x82\x1cVMBS"s
      "\x08_HID\x0dVMBUS\x00"s
      "\x08_CRS\x11\x05\x0a\x02\x79\x00"s;
  EXPECT_EQ(Text(dsdt_ + 36, 49), expected);
}

}  // namespace
}  // namespace vmbfs::test_vmm
