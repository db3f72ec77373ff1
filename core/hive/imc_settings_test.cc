#include "core/hive/imc_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "core/hive/hive_builder.h"

namespace vmbfs::hive {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

ImcSettings NewSettings() { return ImcSettings::Create({}).value(); }

TEST(ImcSettingsTest, ASequenceThatANewMachineHasSeenIsRefusedWithoutForce) {
  for (const uint32_t sequence : {0u, 1u}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ImcSettings::Create({.sequence = sequence}).status()));
    EXPECT_TRUE(ImcSettings::Create({.sequence = sequence, .force = true}).ok());
  }
  const ImcSettings settings = ImcSettings::Create({.sequence = 3}).value();
  EXPECT_EQ(settings.tree().key(RegistryTree::kRoot).values.front().data, LittleEndian(3, 4));
}

TEST(ImcSettingsTest, TheMachinesSystemKeyMayBeWrittenInThreeWays) {
  ImcSettings settings = NewSettings();
  const auto key = settings.AddKey(u"HKEY_LOCAL_MACHINE\\SYSTEM\\Setup");
  ASSERT_TRUE(key.ok());
  EXPECT_EQ(settings.AddKey(u"hklm\\system\\SETUP").value(), *key);
  EXPECT_EQ(settings.AddKey(u"System\\Setup").value(), *key);
  EXPECT_EQ(settings.tree().PathText(*key), "SYSTEM\\Setup");
}

TEST(CheckImcTest, FindingsBeyondAHundredAreOneLine) {
  HiveBuilder hive;
  hive.Dword(RegistryTree::kRoot, u"Sequence", 2);
  const auto system = hive.Key(RegistryTree::kRoot, u"SYSTEM");
  for (char16_t i = 0; i < 1000; ++i) {
    hive.Value(system, std::u16string(1, u'一' + i), ValueType::kDword, {});
  }
  const ImcFindings findings = CheckImc(hive.tree());
  ASSERT_EQ(findings.errors.size(), 101u);
  EXPECT_EQ(findings.errors[99], "SYSTEM\\乣: a DWORD of 0 bytes");
  EXPECT_EQ(findings.errors.back(), "there is more of this kind");
}

TEST(ImcSettingsTest, OtherRootsAreRefused) {
  ImcSettings settings = NewSettings();
  for (const auto* path : {u"HKLM\\SOFTWARE\\x", u"HKEY_CURRENT_USER\\x", u"HKLM", u"",
                           u"SYSTEMS\\x", u"HKEY_USERS\\SYSTEM"}) {
    const auto key = settings.AddKey(path);
    EXPECT_TRUE(absl::IsInvalidArgument(key.status()));
    EXPECT_THAT(std::string(key.status().message()), HasSubstr("HKEY_LOCAL_MACHINE\\SYSTEM"));
  }
  EXPECT_TRUE(absl::IsInvalidArgument(settings.AddKey(u"SYSTEM\\\\x").status()));
}

TEST(ImcSettingsTest, ANumberedControlSetIsRefusedOrRewritten) {
  ImcSettings settings = NewSettings();
  const auto refused = settings.AddKey(u"SYSTEM\\ControlSet001\\Services");
  EXPECT_TRUE(absl::IsInvalidArgument(refused.status()));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("--rewrite-control-sets"));

  ImcSettings rewriting = ImcSettings::Create({.rewrite_control_sets = true}).value();
  const auto key = rewriting.AddKey(u"SYSTEM\\CONTROLSET001\\Services");
  ASSERT_TRUE(key.ok()) << key.status();
  EXPECT_EQ(rewriting.tree().PathText(*key), "SYSTEM\\CurrentControlSet\\Services");
  EXPECT_THAT(rewriting.warnings(), ElementsAre(HasSubstr("below CurrentControlSet")));
  // Only there is it a control set.
  EXPECT_TRUE(settings.AddKey(u"SYSTEM\\Setup\\ControlSet001").ok());
}

TEST(CheckImcTest, MicrosoftsHiveHasNothingToFind) {
  const ImcFindings findings = CheckImc(MicrosoftsTree());
  EXPECT_THAT(findings.errors, IsEmpty());
  EXPECT_THAT(findings.warnings, IsEmpty());
}

TEST(CheckImcTest, AHiveThatWindowsIgnoresIsNamedSo) {
  EXPECT_THAT(CheckImc(RegistryTree()).errors,
              ElementsAre(HasSubstr("no value Sequence"), HasSubstr("no key SYSTEM")));
  HiveBuilder hive;
  hive.String(RegistryTree::kRoot, u"Sequence", u"2");
  hive.Key(RegistryTree::kRoot, u"system");
  hive.Key(RegistryTree::kRoot, u"SOFTWARE");
  const ImcFindings findings = CheckImc(hive.tree());
  EXPECT_THAT(findings.errors, ElementsAre(HasSubstr("no DWORD")));
  EXPECT_THAT(findings.warnings, ElementsAre(HasSubstr("SOFTWARE")));
}

TEST(CheckImcTest, ValuesThatTheirReadersWouldMisreadAreErrors) {
  HiveBuilder hive;
  hive.Dword(RegistryTree::kRoot, u"Sequence", 2);
  const auto set = hive.Key(hive.Key(RegistryTree::kRoot, u"SYSTEM"), u"CurrentControlSet");
  const auto service = hive.Key(hive.Key(set, u"Services"), u"agent");
  hive.String(service, u"Start", u"2");
  hive.Value(service, u"type", ValueType::kQword, LittleEndian(16, 8));
  hive.Value(service, u"open", ValueType::kString, Utf16(u"x"));
  hive.Value(service, u"odd", ValueType::kString, LittleEndian(0, 3));
  hive.Value(service, u"empty", ValueType::kExpandString, {});
  hive.Value(service, u"list", ValueType::kMultiString, Terminated(u"x"));
  hive.Value(service, u"empty list", ValueType::kMultiString, Terminated(u""));
  hive.Value(service, u"short", ValueType::kDword, LittleEndian(1, 2));
  hive.String(set, u"Start", u"is a DWORD in services only");
  EXPECT_THAT(CheckImc(hive.tree()).errors,
              UnorderedElementsAre(
                  "SYSTEM\\CurrentControlSet\\Services\\agent\\Start: a service's Start and Type "
                  "are DWORDs",
                  HasSubstr("type: a service's"), HasSubstr("open: the string does not end"),
                  HasSubstr("odd: the string"), HasSubstr("empty: the string"),
                  HasSubstr("agent\\list: the string"), HasSubstr("short: a DWORD of 2 bytes")));
}

}  // namespace
}  // namespace vmbfs::hive
