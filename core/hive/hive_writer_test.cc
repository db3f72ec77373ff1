#include "core/hive/hive_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/blob/blob_store.h"
#include "core/hive/hive_builder.h"
#include "core/hive/hive_checksum.h"
#include "core/hive/hive_reader.h"
#include "core/hive/test_hives.h"

namespace vmbfs::hive {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Two trees as a hive lists them.
void ExpectSame(const RegistryTree& read, RegistryTree::KeyId a, const RegistryTree& written,
                RegistryTree::KeyId b) {
  EXPECT_EQ(read.key(a).name, written.key(b).name);
  const auto& values_read = read.key(a).values;
  const auto& values_written = written.key(b).values;
  ASSERT_EQ(values_read.size(), values_written.size()) << written.PathText(b);
  for (size_t i = 0; i < values_read.size(); ++i) {
    EXPECT_EQ(values_read[i].name, values_written[i].name);
    EXPECT_EQ(values_read[i].type, values_written[i].type);
    EXPECT_EQ(values_read[i].data, values_written[i].data) << written.PathText(b) << " " << i;
  }
  const auto subkeys_read = read.SortedSubkeys(a);
  const auto subkeys_written = written.SortedSubkeys(b);
  ASSERT_EQ(subkeys_read.size(), subkeys_written.size()) << written.PathText(b);
  for (size_t i = 0; i < subkeys_read.size(); ++i) {
    ExpectSame(read, subkeys_read[i], written, subkeys_written[i]);
  }
}

// Writes, reads back, compares; returns the bytes.
WrittenHive WriteAndCompare(const RegistryTree& tree, const HiveWriteOptions& options = {}) {
  auto hive = WriteHive(tree, options);
  EXPECT_TRUE(hive.ok()) << hive.status();
  if (!hive.ok()) return {};
  const auto reading = ReadHive(hive->bytes);
  EXPECT_TRUE(reading.ok()) << reading.status();
  if (!reading.ok()) return {};
  EXPECT_THAT(reading->warnings, IsEmpty());
  ExpectSame(reading->tree, RegistryTree::kRoot, tree, RegistryTree::kRoot);
  EXPECT_EQ(WriteHive(tree, options)->bytes, hive->bytes) << "the second time is not the same";
  return *std::move(hive);
}

// The digest of the file that Microsoft's Offline Registry library wrote, and the
// two times that are in it (shared/specs/imc.md section 3).
TEST(HiveWriterTest, GivenItsTimesTheHiveOfMicrosoftsLibraryComesOutByteForByte) {
  const auto hive = WriteHive(MicrosoftsTree(), {.key_filetime = 0x01DC54117B99A8E5,
                                                 .offline_registry_filetime = 0x01DC54117B9D55DC});
  ASSERT_TRUE(hive.ok()) << hive.status();
  EXPECT_EQ(hive->bytes.size(), 8192u);
  EXPECT_EQ(Sha256Hex(hive->bytes),
            "cfb2d25a18143feb8739736f816fcd7eac433f6466ab7d0ecdae67d7fb75b8a0");
  EXPECT_THAT(hive->warnings, IsEmpty());
}

TEST(HiveWriterTest, HashesOfKeyNamesAreThoseOfMicrosoftsHive) {
  EXPECT_EQ(HashKeyName(u"SYSTEM"), 0x6141D0F9u);
  EXPECT_EQ(HashKeyName(u"CurrentControlSet"), 0x23B1B3F4u);
  EXPECT_EQ(HashKeyName(u"Control"), 0x55C16481u);
  EXPECT_EQ(HashKeyName(u"Services"), 0x227AF730u);
  EXPECT_EQ(HashKeyName(u"CrashControl"), 0xD4643A1Au);
  EXPECT_EQ(HashKeyName(u"pipette"), 0x0136D30Bu);
  EXPECT_EQ(HashKeyName(u"VMBus"), 0x09D851FDu);
  EXPECT_EQ(HashKeyName(u"Parameters"), 0x6E7FEA98u);
  EXPECT_EQ(HashKeyName(u"parameters"), 0x6E7FEA98u);
}

// Values of all sizes up to 64 MiB, 50,000 subkeys, names of all scripts and more:
// tests/differential shows the same hives to readers that nobody here wrote.
TEST(HiveWriterTest, EveryTestHiveComesBackAndIsTheSameEachTime) {
  for (const TestHive& hive : TestHives()) {
    SCOPED_TRACE(hive.name);
    WriteAndCompare(hive.tree, hive.options);
  }
}

TEST(HiveWriterTest, BigDataIsAWarning) {
  HiveBuilder hive;
  hive.Value(RegistryTree::kRoot, u"v", ValueType::kBinary, std::vector<std::byte>(16'345));
  EXPECT_THAT(WriteHive(hive.tree())->warnings, ElementsAre(HasSubstr("16,344")));
}

// The units of an emoji sort before full-width letters, though its code point is
// above theirs.
TEST(HiveWriterTest, NamesOfEveryScriptComeBackInWindowsOrder) {
  HiveBuilder hive;
  for (const auto* name :
       {u"Ｆｕｌｌ", u"\U0001F600", u"жук", u"Ähre", u"zebra", u"Apfel", u"_", u"日本"}) {
    hive.Key(RegistryTree::kRoot, name);
    hive.Dword(RegistryTree::kRoot, name, 1);
  }
  const WrittenHive written = WriteAndCompare(hive.tree());
  EXPECT_THAT(written.warnings, ElementsAre(HasSubstr("beyond ASCII")));
  const auto reading = ReadHive(written.bytes);
  ASSERT_TRUE(reading.ok());
  std::vector<std::u16string> names;
  for (const auto id : reading->tree.key(RegistryTree::kRoot).subkeys) {
    names.push_back(reading->tree.key(id).name);
  }
  EXPECT_THAT(names, ElementsAre(u"Apfel", u"zebra", u"_", u"Ähre", u"жук", u"日本", u"\U0001F600",
                                 u"Ｆｕｌｌ"));
}

TEST(HiveWriterTest, AListOfMoreThan507SubkeysIsAWarning) {
  for (const int count : {507, 508}) {
    HiveBuilder hive;
    const auto many = hive.Key(RegistryTree::kRoot, u"many");
    for (int i = 0; i < count; ++i) {
      const std::string name = absl::StrCat("key", i);
      hive.Key(many, std::u16string(name.begin(), name.end()));
    }
    EXPECT_EQ(WriteHive(hive.tree())->warnings.size(), count > 507 ? 1u : 0u);
  }
}

TEST(HiveWriterTest, KeysDeeperThanAllowedAreRefused) {
  RegistryTree tree;
  auto id = RegistryTree::kRoot;
  for (size_t depth = 1; depth <= kDepthMax; ++depth) id = tree.AddKey(id, u"k").value();
  EXPECT_TRUE(WriteHive(tree).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(tree.AddKey(id, u"k").status()));
}

TEST(HiveWriterTest, AValueOrAHiveAboveItsLimitIsRefusedWithItsPath) {
  HiveBuilder hive;
  const auto key = hive.Key(hive.Key(RegistryTree::kRoot, u"SYSTEM"), u"Setup");
  hive.Value(key, u"blob", ValueType::kBinary, std::vector<std::byte>((size_t{1} << 20) + 1));
  const auto refused = WriteHive(hive.tree());
  EXPECT_TRUE(absl::IsInvalidArgument(refused.status()));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("SYSTEM\\Setup\\blob has"));
  EXPECT_TRUE(absl::IsResourceExhausted(WriteHive(hive.tree(), {.value_bytes_max = size_t{2} << 20,
                                                                .hive_bytes_max = size_t{1} << 20})
                                            .status()));
}

}  // namespace
}  // namespace vmbfs::hive
