#include "core/hive/explain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/hive/hive_builder.h"
#include "core/hive/hive_diff.h"

namespace vmbfs::hive {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr auto kRoot = RegistryTree::kRoot;

TEST(ExplainHiveTest, MicrosoftsHiveIsPutIntoWords) {
  EXPECT_THAT(
      ExplainHive(MicrosoftsTree()),
      ElementsAre("the machine takes this hive if it has not seen number 2",
                  "a crash restarts the machine: yes",
                  "a dump is kept when disk space is short: yes",
                  "a crash writes a dump of the kernel's memory",
                  "a crash is first written to \"E:\\dumpfile.dmp\"",
                  "a crash dump is kept as \"E:\\memory.dmp\"", "that file has 4095 (0xfff) MB",
                  "service pipette is a program of its own process",
                  "service pipette starts automatically, at boot",
                  "a failure of service pipette at boot is logged, and the boot goes on",
                  "service pipette runs \"D:\\pipette.exe --service\"",
                  "service pipette is shown as \"Petri pipette agent\"",
                  "service pipette runs as \"LocalSystem\"",
                  "service pipette starts after services [\"RpcSs\"]",
                  "an isolated machine uses all VMBus devices: yes"));
}

TEST(ExplainHiveTest, WhatIsNotKnownIsSaidPlainly) {
  HiveBuilder hive;
  const auto services =
      hive.Key(hive.Key(hive.Key(kRoot, u"SYSTEM"), u"CurrentControlSet"), u"Services");
  const auto service = hive.Key(services, u"x");
  hive.Dword(service, u"Start", 9);
  hive.Value(service, u"odd\n", ValueType{0x99}, LittleEndian(0x0201, 2));
  hive.String(service, u"", u"two\nlines");
  hive.Key(service, u"Parameters");
  EXPECT_THAT(
      ExplainHive(hive.tree()),
      ElementsAre("sets SYSTEM\\CurrentControlSet\\Services\\x\\Start to 9, REG_DWORD",
                  "sets SYSTEM\\CurrentControlSet\\Services\\x\\odd\\x0a to 2 bytes: 01 02, type "
                  "0x99",
                  "sets SYSTEM\\CurrentControlSet\\Services\\x\\(default) to \"two\\x0alines\", "
                  "REG_SZ",
                  "makes key SYSTEM\\CurrentControlSet\\Services\\x\\Parameters"));
}

TEST(ExplainHiveTest, ControlCharactersInKeysAreEscaped) {
  HiveBuilder hive;
  const auto key = hive.Key(hive.Key(kRoot, u"SYSTEM"), u"\x1B[2J\x9B");
  hive.Key(key, u"\n");
  hive.Dword(key, u"x\x85", 1);
  EXPECT_THAT(ExplainHive(hive.tree()),
              ElementsAre("sets SYSTEM\\\\x1b[2J\\x9b\\x\\x85 to 1, REG_DWORD",
                          "makes key SYSTEM\\\\x1b[2J\\x9b\\\\x0a"));
  EXPECT_THAT(
      DiffTrees(RegistryTree(), hive.tree()).lines,
      ElementsAre("+ key SYSTEM", "+ key SYSTEM\\\\x1b[2J\\x9b",
                  "+ SYSTEM\\\\x1b[2J\\x9b\\x\\x85 = 1", "+ key SYSTEM\\\\x1b[2J\\x9b\\\\x0a"));
}

// A few hundred bytes of the file would be hundreds of kilobytes of text otherwise.
TEST(ExplainHiveTest, LongPathsAreCutAtTheFront) {
  HiveBuilder hive;
  auto key = hive.Key(kRoot, u"SYSTEM");
  while (hive.tree().key(key).depth < kDepthMax) {
    key = hive.Key(key, std::u16string(kKeyNameUnitsMax, u'k'));
  }
  hive.Dword(key, u"x", 1);
  const std::vector<std::string> lines = ExplainHive(hive.tree());
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_LT(lines.front().size(), 2048u);
  EXPECT_THAT(lines.front(), StartsWith("sets …\\kkk"));
  EXPECT_THAT(lines.front(), EndsWith("k\\x to 1, REG_DWORD"));
  for (const std::string& line : DiffTrees(RegistryTree(), hive.tree()).lines) {
    EXPECT_LT(line.size(), 2048u);
  }
}

TEST(DiffTreesTest, TreesThatDifferInCaseAndOrderAloneAreTheSame) {
  HiveBuilder first;
  first.Dword(kRoot, u"a", 1);
  first.Dword(kRoot, u"b", 2);
  first.Key(kRoot, u"SYSTEM");
  HiveBuilder second;
  second.Key(kRoot, u"System");
  second.Dword(kRoot, u"B", 2);
  second.Dword(kRoot, u"A", 1);
  EXPECT_THAT(DiffTrees(first.tree(), second.tree()).lines, IsEmpty());
}

TEST(DiffTreesTest, RegTextOfADeepHiveEndsAtItsBound) {
  HiveBuilder hive;
  RegistryTree::KeyId key = RegistryTree::kRoot;
  for (int depth = 0; depth < 400; ++depth) key = hive.Key(key, std::u16string(255, u'k'));
  for (char16_t name = 0x4E00; name < 0x4E00 + 100; ++name) hive.Key(key, std::u16string(1, name));
  const HiveDifferences cut = DiffTrees(RegistryTree(), hive.tree(), 1 << 20);
  EXPECT_FALSE(cut.reg_file_is_whole);
  EXPECT_LE(cut.reg_file.size(), size_t{1} << 20);
  const HiveDifferences none = DiffTrees(RegistryTree(), hive.tree(), 0);
  EXPECT_EQ(none.lines, cut.lines);
  EXPECT_EQ(none.reg_file, kRegFileHeader);
  EXPECT_TRUE(DiffTrees(hive.tree(), hive.tree(), 0).lines.empty());
}

TEST(DiffTreesTest, ValuesOfAKeyThatNoLineCanNameAreLeftOutWithIt) {
  HiveBuilder hive;
  hive.Dword(hive.Key(RegistryTree::kRoot, u"Good"), u"A", 1);
  hive.Dword(hive.Key(RegistryTree::kRoot, u"Good\r\n[x"), u"Start", 4);
  const HiveDifferences differences = DiffTrees(RegistryTree(), hive.tree());
  EXPECT_THAT(differences.reg_file, testing::HasSubstr("\"A\"=dword:00000001"));
  EXPECT_THAT(differences.reg_file, testing::Not(testing::HasSubstr("Start")));
}

TEST(DiffTreesTest, WhatIsNewGoneOrOtherIsNamedAndLeadsFromOneToTheOther) {
  HiveBuilder first;
  const auto old_system = first.Key(kRoot, u"SYSTEM");
  first.Dword(kRoot, u"Sequence", 2);
  first.Dword(old_system, u"gone", 1);
  first.Dword(old_system, u"other", 1);
  first.Dword(old_system, u"same", 1);
  first.Dword(first.Key(old_system, u"old key"), u"below", 1);
  HiveBuilder second;
  const auto new_system = second.Key(kRoot, u"SYSTEM");
  second.Dword(kRoot, u"Sequence", 3);
  second.String(new_system, u"other", u"x");
  second.Dword(new_system, u"same", 1);
  second.Dword(second.Key(new_system, u"new key"), u"below", 16);
  const HiveDifferences differences = DiffTrees(first.tree(), second.tree());
  EXPECT_THAT(differences.lines,
              ElementsAre("~ Sequence: 2 -> 3", "- SYSTEM\\gone = 1",
                          "~ SYSTEM\\other: 1 REG_DWORD -> \"x\" REG_SZ", "+ key SYSTEM\\new key",
                          "+ SYSTEM\\new key\\below = 16 (0x10)", "- key SYSTEM\\old key"));
  EXPECT_EQ(differences.reg_file,
            "Windows Registry Editor Version 5.00\n"
            "\n[HKEY_LOCAL_MACHINE\\SYSTEM]\n\"gone\"=-\n\"other\"=\"x\"\n"
            "\n[HKEY_LOCAL_MACHINE\\SYSTEM\\new key]\n\"below\"=dword:00000010\n"
            "\n[-HKEY_LOCAL_MACHINE\\SYSTEM\\old key]\n");
}

}  // namespace
}  // namespace vmbfs::hive
