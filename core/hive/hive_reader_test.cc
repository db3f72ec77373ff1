// What the strict reader refuses. Offsets are those of Microsoft's hive, as
// shared/specs/imc.md section 3.2 lists its cells.

#include "core/hive/hive_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "core/hive/hive_builder.h"
#include "core/hive/hive_checksum.h"
#include "core/hive/hive_format.h"
#include "core/hive/hive_writer.h"

namespace vmbfs::hive {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint32_t kRootKey = 0x020;
constexpr uint32_t kSecurity = 0x078;
constexpr uint32_t kRootValueList = 0x120;
constexpr uint32_t kSequence = 0x128;
constexpr uint32_t kRootSubkeys = 0x148;
constexpr uint32_t kSystemKey = 0x158;
constexpr uint32_t kSetSubkeys = 0x228;
constexpr uint32_t kCrashControlValueList = 0x378;
constexpr uint32_t kDedicatedDumpFile = 0x418;
constexpr uint32_t kDedicatedDumpFileData = 0x448;
constexpr uint32_t kDumpFile = 0x470;
constexpr uint32_t kPipetteKey = 0x4d8;
constexpr uint32_t kFreeCell = 0x800;

// The bytes of a hive, to be broken.
class Bytes {
 public:
  explicit Bytes(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}

  void Set(size_t position, uint64_t number, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) {
      bytes_.at(position + i) = static_cast<std::byte>(number >> (8 * i));
    }
  }
  uint32_t Get(size_t position) const {
    uint32_t number = 0;
    for (size_t i = 0; i < 4; ++i) {
      number |= std::to_integer<uint32_t>(bytes_.at(position + i)) << (8 * i);
    }
    return number;
  }

  // Within the base block; its checksum is right afterwards.
  void SetBase(size_t position, uint64_t number, size_t bytes) {
    Set(position, number, bytes);
    BaseBlock base;
    std::memcpy(&base, bytes_.data(), sizeof(base));
    Set(kChecksummedBytes, ChecksumOf(base), 4);
  }
  // Within a cell's record, and the cell's own size.
  void SetRecord(uint32_t cell, size_t position, uint64_t number, size_t bytes = 4) {
    Set(kBaseBlockBytes + cell + kCellHeaderBytes + position, number, bytes);
  }
  uint32_t GetRecord(uint32_t cell, size_t position) const {
    return Get(kBaseBlockBytes + cell + kCellHeaderBytes + position);
  }
  void SetCell(uint32_t cell, int32_t size) {
    Set(kBaseBlockBytes + cell, static_cast<uint32_t>(size), 4);
  }
  // The offset of the first cell whose record begins with these two characters.
  uint32_t Find(uint16_t signature) const {
    for (uint32_t cell = kRootOffset;; cell += kCellUnitBytes) {
      if ((GetRecord(cell, 0) & 0xFFFF) == signature) return cell;
    }
  }

  std::vector<std::byte>& bytes() { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

Bytes MicrosoftsHive() { return Bytes(WriteHive(MicrosoftsTree()).value().bytes); }

// With `ri`, `db`, and several bins.
Bytes RichHive() {
  HiveBuilder hive;
  const auto many = hive.Key(RegistryTree::kRoot, u"many");
  for (char16_t i = 0; i < 1020; ++i) {
    hive.Key(many, std::u16string{static_cast<char16_t>(u'a' + i / 100),
                                  static_cast<char16_t>(u'0' + i / 10 % 10),
                                  static_cast<char16_t>(u'0' + i % 10)});
  }
  hive.Value(RegistryTree::kRoot, u"big", ValueType::kBinary, std::vector<std::byte>(40'000));
  return Bytes(WriteHive(hive.tree()).value().bytes);
}

std::string RefusalOf(const std::vector<std::byte>& bytes) {
  const auto reading = ReadHive(bytes);
  if (reading.ok()) return "accepted";
  EXPECT_TRUE(absl::IsInvalidArgument(reading.status()));
  return std::string(reading.status().message());
}

struct Damage {
  const char* name;
  std::function<void(Bytes&)> damage;
  const char* refusal;
};
void PrintTo(const Damage& damage, std::ostream* stream) { *stream << damage.name; }

class DamagedHiveTest : public ::testing::TestWithParam<Damage> {};

TEST_P(DamagedHiveTest, IsRefusedWithItsReason) {
  Bytes hive = MicrosoftsHive();
  ASSERT_EQ(RefusalOf(hive.bytes()), "accepted");
  GetParam().damage(hive);
  EXPECT_THAT(RefusalOf(hive.bytes()), AllOf(HasSubstr(" at 0x"), HasSubstr(GetParam().refusal)));
}

std::string DamageName(const ::testing::TestParamInfo<Damage>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(
    BaseBlock, DamagedHiveTest,
    ::testing::ValuesIn(std::vector<Damage>{
        {"Signature", [](Bytes& h) { h.SetBase(0, 'R', 1); }, "not `regf`"},
        {"Checksum", [](Bytes& h) { h.Set(kChecksummedBytes, 7, 4); }, "checksum is 0x7"},
        {"ReservedByteWithoutChecksum", [](Bytes& h) { h.Set(200, 1, 1); }, "checksum"},
        {"DirtySequences", [](Bytes& h) { h.SetBase(4, 2, 4); }, "sequence numbers differ"},
        {"MajorVersion", [](Bytes& h) { h.SetBase(20, 2, 4); }, "version 2.5"},
        {"MinorVersion2", [](Bytes& h) { h.SetBase(24, 2, 4); }, "version 1.2"},
        {"MinorVersion7", [](Bytes& h) { h.SetBase(24, 7, 4); }, "version 1.7"},
        {"FileType", [](Bytes& h) { h.SetBase(28, 1, 4); }, "no primary file"},
        {"Format", [](Bytes& h) { h.SetBase(32, 2, 4); }, "format is not 1"},
        {"RootOffset", [](Bytes& h) { h.SetBase(36, 0x28, 4); }, "no cell begins there"},
        {"RootOffsetOfAnotherRecord", [](Bytes& h) { h.SetBase(36, kSecurity, 4); }, "not `nk`"},
        {"Cluster", [](Bytes& h) { h.SetBase(44, 8, 4); }, "clustering factor"},
        {"LengthBeyondTheFile", [](Bytes& h) { h.SetBase(40, 0x2000, 4); }, "in a file that has"},
        {"LengthNotOfWholeBins", [](Bytes& h) { h.SetBase(40, 0x800, 4); }, "bins of 2048"},
        {"LengthZero", [](Bytes& h) { h.SetBase(40, 0, 4); }, "bins of 0"},
    }),
    DamageName);

INSTANTIATE_TEST_SUITE_P(
    BinsAndCells, DamagedHiveTest,
    ::testing::ValuesIn(std::vector<Damage>{
        {"BinSignature", [](Bytes& h) { h.Set(4096, 'H', 1); }, "not `hbin`"},
        {"BinOffset", [](Bytes& h) { h.Set(4100, 0x1000, 4); }, "it lies at offset 4096"},
        {"BinSize", [](Bytes& h) { h.Set(4104, 0x2000, 4); }, "its size is 8192"},
        {"BinSizeZero", [](Bytes& h) { h.Set(4104, 0, 4); }, "its size is 0"},
        {"BinSizeNotOfUnits", [](Bytes& h) { h.Set(4104, 0x800, 4); }, "its size is 2048"},
        {"CellSizeZero", [](Bytes& h) { h.SetCell(kFreeCell, 0); }, "its size is 0"},
        {"CellBeyondItsBin", [](Bytes& h) { h.SetCell(kFreeCell, 2056); }, "leaves its bin"},
        {"CellMisaligned", [](Bytes& h) { h.SetCell(kFreeCell, 2044); }, "no multiple of 8"},
        {"CellOfTheSmallestNumber", [](Bytes& h) { h.SetCell(kFreeCell, INT32_MIN); },
         "leaves its bin"},
        {"KeyInAFreeCell", [](Bytes& h) { h.SetCell(kSystemKey, 88); }, "its cell is free"},
    }),
    DamageName);

INSTANTIATE_TEST_SUITE_P(
    Keys, DamagedHiveTest,
    ::testing::ValuesIn(std::vector<Damage>{
        {"Signature", [](Bytes& h) { h.SetRecord(kSystemKey, 0, 'x', 1); }, "not `nk`"},
        {"Flags", [](Bytes& h) { h.SetRecord(kSystemKey, 2, 0x21, 2); }, "flags are 0x21"},
        {"SecondRoot", [](Bytes& h) { h.SetRecord(kSystemKey, 2, 0x24, 2); }, "it is the root"},
        {"Parent", [](Bytes& h) { h.SetRecord(kSystemKey, 16, 0x158); }, "its parent is 0x158"},
        {"VolatileCount", [](Bytes& h) { h.SetRecord(kSystemKey, 24, 1); }, "volatile subkeys"},
        {"NameEmpty", [](Bytes& h) { h.SetRecord(kSystemKey, 72, 0, 2); }, "its name is empty"},
        {"NameOutside", [](Bytes& h) { h.SetRecord(kSystemKey, 72, 9, 2); }, "leaves its cell"},
        {"NameWithABackslash", [](Bytes& h) { h.SetRecord(kSystemKey, 76, '\\', 1); }, "hint"},
        {"OddBytesOfUtf16",
         [](Bytes& h) {
           h.SetRecord(kSystemKey, 2, 0, 2);
           h.SetRecord(kSystemKey, 72, 5, 2);
         },
         "odd number of bytes"},
        {"CellTooLarge", [](Bytes& h) { h.SetCell(kRootKey, -4064); }, "at most 1116"},
        {"ClassOutside",
         [](Bytes& h) {
           h.SetRecord(kSystemKey, 74, 8, 2);
           h.SetRecord(kSystemKey, 48, 0x900);
         },
         "class name at 0x1900: no cell begins there"},
        {"MaximumOfSubkeyNames", [](Bytes& h) { h.SetRecord(kRootKey, 52, 10, 2); }, "maximum"},
        {"MaximumOfValueNames", [](Bytes& h) { h.SetRecord(kRootKey, 60, 14); }, "maximum"},
        {"MaximumOfData", [](Bytes& h) { h.SetRecord(kRootKey, 64, 3); }, "maximum"},
        {"CycleOfKeys", [](Bytes& h) { h.SetRecord(kSetSubkeys, 4, kRootKey); }, "used twice"},
    }),
    DamageName);

INSTANTIATE_TEST_SUITE_P(
    Lists, DamagedHiveTest,
    ::testing::ValuesIn(std::vector<Damage>{
        {"Signature", [](Bytes& h) { h.SetRecord(kSetSubkeys, 0, 'x', 1); }, "none of `lh`"},
        {"Hash", [](Bytes& h) { h.SetRecord(kSetSubkeys, 8, 1); }, "its hint 0x1"},
        {"Order",
         [](Bytes& h) {
           for (const size_t part : {4, 8}) {  // offsets, then hashes
             const uint32_t first = h.GetRecord(kSetSubkeys, part);
             h.SetRecord(kSetSubkeys, part, h.GetRecord(kSetSubkeys, part + 8));
             h.SetRecord(kSetSubkeys, part + 8, first);
           }
         },
         "order of names"},
        {"FewerThanTheirKeySays", [](Bytes& h) { h.SetRecord(kSetSubkeys, 2, 1, 2); },
         "it has 1 keys; its key says 2"},
        {"MoreThanTheirKeySays", [](Bytes& h) { h.SetRecord(0x1c0, 20, 1); }, "more keys than"},
        {"Empty", [](Bytes& h) { h.SetRecord(kSetSubkeys, 2, 0, 2); }, "it is empty"},
        {"ElementsOutside", [](Bytes& h) { h.SetRecord(kRootSubkeys, 2, 2, 2); }, "leave its cell"},
        {"ListWithoutSubkeys", [](Bytes& h) { h.SetRecord(kPipetteKey, 28, 0x800); },
         "and no subkeys"},
        {"SelfReferencingIndex",
         [](Bytes& h) {
           h.SetRecord(kRootSubkeys, 0, kIndexRootSignature, 2);
           h.SetRecord(kRootSubkeys, 4, kRootSubkeys);
         },
         "used twice"},
        {"IndexOfAnIndex",
         [](Bytes& h) {
           h.SetRecord(kRootSubkeys, 0, kIndexRootSignature, 2);
           h.SetRecord(kRootSubkeys, 4, kSetSubkeys);
           h.SetRecord(kSetSubkeys, 0, kIndexRootSignature, 2);
         },
         "none of `lh`"},
    }),
    DamageName);

INSTANTIATE_TEST_SUITE_P(
    Values, DamagedHiveTest,
    ::testing::ValuesIn(std::vector<Damage>{
        {"ListOutside", [](Bytes& h) { h.SetRecord(kRootKey, 40, 0x2000); }, "no cell begins"},
        {"ListTooShort", [](Bytes& h) { h.SetRecord(kRootKey, 36, 2); }, "do not fit its cell"},
        {"ListOfTooMany", [](Bytes& h) { h.SetRecord(kRootKey, 36, 0xFFFFFFFF); }, "do not fit"},
        {"ListWithoutValues", [](Bytes& h) { h.SetRecord(kSystemKey, 40, kRootValueList); },
         "and no values"},
        {"Signature", [](Bytes& h) { h.SetRecord(kSequence, 0, 'x', 1); }, "not `vk`"},
        {"NameOutside", [](Bytes& h) { h.SetRecord(kSequence, 2, 9, 2); }, "leaves its cell"},
        {"Flags", [](Bytes& h) { h.SetRecord(kSequence, 16, 3, 2); }, "flags are 0x3"},
        {"Duplicate",
         [](Bytes& h) {
           // AutoReboot gets the name of DumpFile.
           h.SetRecord(0x398, 2, 8, 2);
           for (size_t i = 0; i < 8; ++i) h.SetRecord(0x398, 20 + i, "dUMPfILE"[i], 1);
         },
         "is there already"},
        {"SharedRecord", [](Bytes& h) { h.SetRecord(kCrashControlValueList, 4, 0x398); },
         "used twice"},
        {"SharedData", [](Bytes& h) { h.SetRecord(kDumpFile, 8, kDedicatedDumpFileData); },
         "used twice"},
        {"DataOutside", [](Bytes& h) { h.SetRecord(kDedicatedDumpFile, 8, 0x5000); },
         "no cell begins"},
        {"DataLargerThanItsCell", [](Bytes& h) { h.SetRecord(kDedicatedDumpFile, 4, 37); },
         "do not fit its cell"},
        {"FiveBytesInline", [](Bytes& h) { h.SetRecord(kSequence, 4, 0x80000005); },
         "within its record"},
        {"ZeroLengthRule", [](Bytes& h) { h.SetRecord(kDedicatedDumpFile, 4, 0); },
         "no data and says where"},
    }),
    DamageName);

INSTANTIATE_TEST_SUITE_P(
    Security, DamagedHiveTest,
    ::testing::ValuesIn(std::vector<Damage>{
        {"Count", [](Bytes& h) { h.SetRecord(kSecurity, 12, 8); }, "counts 8 users and has 9"},
        {"Links", [](Bytes& h) { h.SetRecord(kSecurity, 4, kRootKey); }, "its links"},
        {"LinksBack", [](Bytes& h) { h.SetRecord(kSecurity, 8, kRootKey); }, "its links"},
        {"None",
         [](Bytes& h) {
           h.SetRecord(kSystemKey, 44, kNoCell);
           h.SetRecord(kSecurity, 12, 8);
         },
         "no cell begins there"},
        {"AnotherRecord",
         [](Bytes& h) {
           h.SetRecord(kSystemKey, 44, kSequence);
           h.SetRecord(kSecurity, 12, 8);
         },
         "used twice"},
        {"Signature", [](Bytes& h) { h.SetRecord(kSecurity, 0, 'x', 1); }, "not `sk`"},
        {"Size", [](Bytes& h) { h.SetRecord(kSecurity, 16, 0x1000); }, "leaves its cell"},
        {"NotSelfRelative", [](Bytes& h) { h.SetRecord(kSecurity, 20 + 2, 4, 2); },
         "not self-relative"},
        {"Owner", [](Bytes& h) { h.SetRecord(kSecurity, 20 + 4, 0x8F); }, "no SID"},
        {"Dacl", [](Bytes& h) { h.SetRecord(kSecurity, 20 + 16, 0x8F); }, "DACL lies outside"},
        {"DaclSize", [](Bytes& h) { h.SetRecord(kSecurity, 20 + 0x16, 0xFFF, 2); },
         "DACL has a size"},
        {"DaclEntries", [](Bytes& h) { h.SetRecord(kSecurity, 20 + 0x18, 5, 2); },
         "an entry outside"},
    }),
    DamageName);

TEST(HiveReaderTest, BrokenBigDataIsRefused) {
  for (const auto& [position, number, refusal] :
       {std::tuple(0, 0x7878u, "not `db`"), std::tuple(2, 4u, "it has 4 segments"),
        std::tuple(4, 0x20u, "used twice")}) {
    Bytes hive = RichHive();
    ASSERT_EQ(RefusalOf(hive.bytes()), "accepted");
    hive.SetRecord(hive.Find(kBigDataSignature), position, number, position == 4 ? 4 : 2);
    EXPECT_THAT(RefusalOf(hive.bytes()), HasSubstr(refusal));
  }
  Bytes hive = RichHive();
  const uint32_t list = hive.GetRecord(hive.Find(kBigDataSignature), 4);
  hive.SetRecord(list, 4, hive.GetRecord(list, 0));
  EXPECT_THAT(RefusalOf(hive.bytes()), HasSubstr("used twice"));
}

TEST(HiveReaderTest, ALeafThatAnIndexNamesTwiceIsRefused) {
  Bytes hive = RichHive();
  const uint32_t index = hive.Find(kIndexRootSignature);
  hive.SetRecord(index, 8, hive.GetRecord(index, 4));
  EXPECT_THAT(RefusalOf(hive.bytes()), HasSubstr("used twice"));
}

TEST(HiveReaderTest, EveryTruncationIsRefused) {
  const std::vector<std::byte> hive = MicrosoftsHive().bytes();
  for (size_t bytes = 0; bytes < hive.size(); ++bytes) {
    EXPECT_NE(RefusalOf({hive.begin(), hive.begin() + static_cast<ptrdiff_t>(bytes)}), "accepted");
  }
}

TEST(HiveReaderTest, BytesBehindTheHiveAreAWarning) {
  std::vector<std::byte> hive = MicrosoftsHive().bytes();
  hive.resize(hive.size() + 5);
  const auto reading = ReadHive(hive);
  ASSERT_TRUE(reading.ok()) << reading.status();
  EXPECT_THAT(reading->warnings, ElementsAre(HasSubstr("5 bytes")));
}

TEST(HiveReaderTest, ACellThatNothingRefersToIsAWarning) {
  Bytes hive = MicrosoftsHive();
  hive.SetCell(kFreeCell, -2048);
  const auto reading = ReadHive(hive.bytes());
  ASSERT_TRUE(reading.ok()) << reading.status();
  EXPECT_THAT(reading->warnings, ElementsAre(HasSubstr("1 cells")));
}

// What is accepted is written and read again as the same; no damage of a byte
// may crash the reader or send it in circles.
TEST(HiveReaderTest, EveryDamageOfAByteIsRefusedOrReadsTheSameAfterARebuild) {
  const std::vector<std::byte> good = MicrosoftsHive().bytes();
  size_t refused = 0;
  for (size_t position = kBaseBlockBytes; position < kBaseBlockBytes + kFreeCell; ++position) {
    std::vector<std::byte> hive = good;
    hive[position] ^= static_cast<std::byte>(1 + position % 255);
    const auto reading = ReadHive(hive);
    if (!reading.ok()) {
      ++refused;
      continue;
    }
    const auto rebuilt = WriteHive(reading->tree);
    ASSERT_TRUE(rebuilt.ok()) << position << rebuilt.status();
    const auto again = ReadHive(rebuilt->bytes);
    ASSERT_TRUE(again.ok()) << position << again.status();
    EXPECT_EQ(WriteHive(again->tree)->bytes, rebuilt->bytes);
  }
  EXPECT_GT(refused, kFreeCell / 3);
}

}  // namespace
}  // namespace vmbfs::hive
