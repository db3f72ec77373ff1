#include "core/hive/imc_build.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "core/hive/explain.h"
#include "core/hive/hive_builder.h"
#include "core/hive/hive_writer.h"

namespace vmbfs::hive {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ImcInput Input(std::string name, std::string_view text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {.name = std::move(name), .bytes = {data, data + text.size()}};
}

const std::string_view kReg =
    "Windows Registry Editor Version 5.00\n[HKLM\\SYSTEM\\a]\n\"x\"=dword:1\n";
const std::string_view kJson = " \n{\"keys\": {\"SYSTEM\\\\b\": {\"x\": {\"dword\": 2}}}}";
const std::string_view kPolicy(
    "PReg\x01\0\0\0[\0S\0Y\0S\0T\0E\0M\0\\\0c\0\0\0;\0x\0\0\0;\0\x04\0\0\0;\0\x04\0\0\0;\0\x03\0\0"
    "\0]\0",
    54);

TEST(BuildImcTest, EachInputIsTakenForWhatItsBytesSay) {
  const std::vector<ImcInput> inputs = {Input("a", kReg), Input("b", kJson), Input("c", kPolicy)};
  const auto build = BuildImc(inputs, {});
  ASSERT_TRUE(build.ok()) << build.status();
  EXPECT_THAT(build->warnings, IsEmpty());
  const auto validation = ValidateImc(build->hive);
  ASSERT_TRUE(validation.ok()) << validation.status();
  EXPECT_THAT(ExplainHive(validation->tree),
              ElementsAre("the machine takes this hive if it has not seen number 2",
                          "sets SYSTEM\\a\\x to 1, REG_DWORD", "sets SYSTEM\\b\\x to 2, REG_DWORD",
                          "sets SYSTEM\\c\\x to 3, REG_DWORD"));
  EXPECT_EQ(BuildImc(inputs, {})->hive, build->hive);
}

// Several files may share keys, as exports of regedit do.
TEST(BuildImcTest, AValueOfTwoInputsIsRefusedWithBothPlacesAndTheirKeyIsNot) {
  const std::string_view same = "{\"keys\": {\"hklm\\\\System\\\\A\": {\"X\": {\"dword\": 1}}}}";
  const std::string_view other = "{\"keys\": {\"hklm\\\\System\\\\A\": {\"Y\": {\"dword\": 1}}}}";
  EXPECT_TRUE(BuildImc(std::vector{Input("a.reg", kReg), Input("b.json", other)}, {}).ok());
  EXPECT_EQ(
      BuildImc(std::vector{Input("a.reg", kReg), Input("b.json", same)}, {}).status().message(),
      "b.json:1:36: value X is there already (case does not matter); it was given at a.reg:3:1");
  EXPECT_EQ(
      BuildImc(std::vector{Input("c.pol", kPolicy), Input("d.reg",
                                                          "Windows Registry Editor Version 5.00\n"
                                                          "[HKLM\\SYSTEM\\c]\n  \"x\"=dword:1\n")},
               {})
          .status()
          .message(),
      "d.reg:3:3: value x is there already (case does not matter); it was given at c.pol: "
      "0x8");
}

TEST(BuildImcTest, JsonInUtf16IsTakenForJson) {
  const ImcInput input{.name = "a", .bytes = Utf16(u"\uFEFF {\"keys\": {}}")};
  EXPECT_TRUE(BuildImc(std::vector{input}, {}).ok());
}

TEST(BuildImcTest, WhatIsNoneOfTheFormatsIsSaidWithTheirNames) {
  const auto build = BuildImc(std::vector{Input("x.yaml", "keys:\n")}, {});
  EXPECT_TRUE(absl::IsInvalidArgument(build.status()));
  for (const char* word : {"x.yaml:1:1", "Registry Editor", "JSON", "registry.pol"}) {
    EXPECT_THAT(std::string(build.status().message()), HasSubstr(word));
  }
}

TEST(BuildImcTest, AHiveAmongTheInputsIsNamedAsWhatItIs) {
  const ImcInput hive{.name = "imc.hiv", .bytes = WriteHive(MicrosoftsTree())->bytes};
  EXPECT_THAT(std::string(BuildImc(std::vector{hive}, {}).status().message()),
              HasSubstr("imc.hiv: this is a hive already"));
}

TEST(BuildImcTest, SeveralErrorsAreALineEach) {
  const auto build =
      BuildImc(std::vector{Input("a",
                                 "Windows Registry Editor Version 5.00\n[HKLM\\SYSTEM\\a]\n"
                                 "\"x\"=hex(4):01\n\"y\"=hex(1):61,00\n")},
               {});
  EXPECT_EQ(build.status().message(),
            "SYSTEM\\a\\x: a DWORD of 1 bytes\nSYSTEM\\a\\y: the string does not end with a NUL");
}

TEST(BuildImcTest, AnInputAboveItsBoundIsRefused) {
  const ImcInput input{.name = "a", .bytes = std::vector<std::byte>(kImcInputBytesMax + 1)};
  EXPECT_THAT(std::string(BuildImc(std::vector{input}, {}).status().message()),
              HasSubstr("67108865 bytes; at most 67108864"));
}

TEST(ValidateImcTest, WarningsOfReadingAndOfMeaningComeTogether) {
  HiveBuilder hive;
  hive.Dword(RegistryTree::kRoot, u"Sequence", 1);
  hive.Key(RegistryTree::kRoot, u"SYSTEM");
  std::vector<std::byte> bytes = WriteHive(hive.tree())->bytes;
  bytes.resize(bytes.size() + 3);
  const auto validation = ValidateImc(bytes);
  ASSERT_TRUE(validation.ok()) << validation.status();
  EXPECT_THAT(validation->warnings,
              ElementsAre(HasSubstr("3 bytes lie behind"), HasSubstr("Sequence is below 2")));
}

TEST(ValidateImcTest, AHiveThatWindowsIgnoresIsAnError) {
  const auto bytes = WriteHive(RegistryTree())->bytes;
  EXPECT_THAT(std::string(ValidateImc(bytes).status().message()),
              HasSubstr("no value Sequence: Windows ignores the hive\nthe root has no key SYSTEM"));
}

// As `vmbfsctl imc build --wmi` writes it.
TEST(ValidateImcTest, AHiveBehindALengthIsNamedAsWhatItIs) {
  std::vector<std::byte> bytes = WriteHive(MicrosoftsTree())->bytes;
  const std::vector<std::byte> length = LittleEndian(0x04200000, 4);
  bytes.insert(bytes.begin(), length.begin(), length.end());
  EXPECT_THAT(std::string(ValidateImc(bytes).status().message()),
              HasSubstr("SetInitialMachineConfigurationData"));
}

}  // namespace
}  // namespace vmbfs::hive
