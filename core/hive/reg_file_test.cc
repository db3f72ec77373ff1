#include "core/hive/reg_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/hive/hive_builder.h"

namespace vmbfs::hive {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::string_view kHeader = "Windows Registry Editor Version 5.00\n\n";

std::vector<std::byte> Bytes(std::string_view text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

ImcSettings NewSettings() { return ImcSettings::Create({}).value(); }

// What is wrong with a file of this body.
std::string ErrorOf(std::string_view body) {
  ImcSettings settings = NewSettings();
  const absl::Status status =
      AddRegFile("in.reg", Bytes(absl::StrCat(std::string(kHeader), std::string(body))), settings);
  return std::string(status.message());
}

// The one value of a file that has one.
RegistryValue ValueOf(std::string_view line) {
  ImcSettings settings = NewSettings();
  const absl::Status status = AddRegFile(
      "in.reg", Bytes(absl::StrCat(std::string(kHeader), "[HKLM\\SYSTEM\\x]\n", std::string(line))),
      settings);
  EXPECT_TRUE(status.ok()) << status;
  const auto key = settings.tree().FindKey(
      settings.tree().FindKey(RegistryTree::kRoot, u"SYSTEM").value(), u"x");
  if (!status.ok() || !key.has_value()) return {};
  const auto& values = settings.tree().key(*key).values;
  EXPECT_EQ(values.size(), 1u);
  return values.empty() ? RegistryValue() : values.front();
}

void ExpectValue(std::string_view line, std::u16string_view name, ValueType type,
                 const std::vector<std::byte>& data) {
  const RegistryValue value = ValueOf(line);
  EXPECT_EQ(value.name, name) << line;
  EXPECT_EQ(value.type, type) << line;
  EXPECT_EQ(value.data, data) << line;
}

TEST(RegFileTest, EveryFormOfDataIsUnderstood) {
  ExpectValue("\"a\"=\"text\"", u"a", ValueType::kString, Terminated(u"text"));
  ExpectValue("\"a\"=\"C:\\\\dir\\\\\\\"x\\\"\"", u"a", ValueType::kString,
              Terminated(u"C:\\dir\\\"x\""));
  ExpectValue("@=\"\"", u"", ValueType::kString, Terminated(u""));
  ExpectValue("\"a\"=dword:ff", u"a", ValueType::kDword, LittleEndian(0xFF, 4));
  ExpectValue("\"a\"=dword:DEADbeef ; why", u"a", ValueType::kDword, LittleEndian(0xDEADBEEF, 4));
  ExpectValue("\"a\"=hex:", u"a", ValueType::kBinary, {});
  ExpectValue("\"a\"=hex:1,02,fF", u"a", ValueType::kBinary, LittleEndian(0xFF0201, 3));
  ExpectValue("\"a\"=hex(b):08,07,06,05,04,03,02,01", u"a", ValueType::kQword,
              LittleEndian(0x0102030405060708, 8));
  ExpectValue("\"a\"=hex(7):61,00,00,00,\\\n  00,00", u"a", ValueType::kMultiString,
              Utf16(std::u16string_view(u"a\0\0", 3)));
  ExpectValue("\"a\"=hex(2):25,00,\\ ; more\r\n\t00,00\r\n", u"a", ValueType::kExpandString,
              Terminated(u"%"));
  ExpectValue("\"a\"=hex(ffff0001):01", u"a", ValueType{0xFFFF0001}, LittleEndian(1, 1));
  ExpectValue("  \"a = b\"  =  dword:00000001", u"a = b", ValueType::kDword, LittleEndian(1, 4));
  ExpectValue("\"Größe 😀\"=dword:1", u"Größe 😀", ValueType::kDword, LittleEndian(1, 4));
}

TEST(RegFileTest, BytesAreUtf16WithAMarkOrUtf8WithOrWithoutOne) {
  const std::string text = absl::StrCat(std::string(kHeader), "[HKLM\\SYSTEM\\Größe]\r\n");
  const std::u16string wide = u"Windows Registry Editor Version 5.00\r\n[HKLM\\SYSTEM\\Größe]\r\n";
  std::vector<std::byte> utf16 = Utf16(u"\uFEFF" + wide);
  for (const auto& bytes : {Bytes(text), Bytes("\xEF\xBB\xBF" + text), utf16}) {
    ImcSettings settings = NewSettings();
    ASSERT_TRUE(AddRegFile("in.reg", bytes, settings).ok());
    const auto system = settings.tree().FindKey(RegistryTree::kRoot, u"SYSTEM").value();
    EXPECT_TRUE(settings.tree().FindKey(system, u"größe").has_value());
  }
  ImcSettings settings = NewSettings();
  utf16.push_back(std::byte{0});
  EXPECT_THAT(std::string(AddRegFile("in.reg", utf16, settings).message()),
              HasSubstr("odd number"));
  EXPECT_THAT(std::string(AddRegFile("in.reg", Bytes("\xFF"), settings).message()),
              HasSubstr("neither UTF-8"));
}

TEST(RegFileTest, MistakesAreNamedByFileLineAndColumn) {
  EXPECT_EQ(ErrorOf("[HKLM\\SYSTEM\\x]\n\"a\"=dword:12345678 9"),
            "in.reg:4:20: text behind the value");
  EXPECT_THAT(ErrorOf("\"a\"=dword:1"), StartsWith("in.reg:3:1: a value before the first key"));
  EXPECT_THAT(ErrorOf("[HKLM\\SYSTEM\\x"), StartsWith("in.reg:3:1: the key's `]`"));
  EXPECT_THAT(ErrorOf("[HKLM\\SYSTEM\\x] y"), StartsWith("in.reg:3:17: text behind the key"));
  EXPECT_THAT(ErrorOf("[HKLM\\SYSTEM\\x]\nstart=1"), StartsWith("in.reg:4:1: a key in brackets"));
  EXPECT_THAT(ErrorOf("[HKLM\\SYSTEM\\x]\n\"a=1"), StartsWith("in.reg:4:1: the string does not"));
  EXPECT_THAT(ErrorOf("[HKLM\\SYSTEM\\x]\n\"a\":1"), StartsWith("in.reg:4:4: `=`"));
  EXPECT_THAT(ErrorOf("[HKLM\\SYSTEM\\x]\n\"a\"=1"), StartsWith("in.reg:4:5: data is"));
  EXPECT_THAT(ErrorOf("[HKLM\\SYSTEM\\x]\n\"a\"=\"\\n\""), StartsWith("in.reg:4:7: a backslash"));
  EXPECT_THAT(ErrorOf("[HKLM\\SYSTEM\\x]\n\"a\"=dword:"), StartsWith("in.reg:4:11: hexadecimal"));
  EXPECT_THAT(ErrorOf("[HKLM\\SYSTEM\\x]\n\"a\"=dword:123456789"), HasSubstr("at most 8"));
  EXPECT_THAT(ErrorOf("[HKLM\\SYSTEM\\x]\n\"a\"=hex:1,,2"), HasSubstr("behind the comma"));
  EXPECT_THAT(ErrorOf("[HKLM\\SYSTEM\\x]\n\"a\"=hex(:1"), HasSubstr("`hex(TYPE):`"));
  EXPECT_THAT(ErrorOf("[HKLM\\SYSTEM\\x]\n\"a\"=hex:1,\\"), HasSubstr("the file ends"));
  EXPECT_THAT(ErrorOf("[HKLM\\SYSTEM\\x]\n\"\"=dword:1"), HasSubstr("default value is `@`"));
}

TEST(RegFileTest, AnotherFirstLineIsRefused) {
  for (const char* text : {"", "REGEDIT4\n", "Windows Registry Editor Version 5.001\n",
                           "\nWindows Registry Editor Version 5.00\n"}) {
    ImcSettings settings = NewSettings();
    EXPECT_THAT(std::string(AddRegFile("in.reg", Bytes(text), settings).message()),
                StartsWith("in.reg:1:"));
  }
}

TEST(RegFileTest, DeletionsAreRefused) {
  EXPECT_THAT(ErrorOf("[-HKLM\\SYSTEM\\x]"), HasSubstr("in.reg:3:1: deleting a key"));
  EXPECT_THAT(ErrorOf("[HKLM\\SYSTEM\\x]\n\"a\"=-"), HasSubstr("in.reg:4:5: deleting a value"));
}

TEST(RegFileTest, WhatWasThereBeforeIsRefusedInAnyCase) {
  EXPECT_THAT(ErrorOf("[HKLM\\SYSTEM\\x]\n[hklm\\system\\X]"),
              HasSubstr("in.reg:4:1: this key was there before, in line 3"));
  EXPECT_THAT(ErrorOf("[HKLM\\SYSTEM\\x]\n\"a\"=dword:1\n\"A\"=dword:1"),
              HasSubstr("in.reg:5:1: value A is there already (case does not matter); it was given "
                        "at in.reg:4:1"));
}

TEST(RegFileTest, TextBeyondAsciiIsUtf16ForRegedit) {
  EXPECT_EQ(ForRegedit("[a]\n"), "[a]\n");
  EXPECT_EQ(ForRegedit("ä\n"), std::string("\xFF\xFE\xE4\0\n\0", 6));
}

TEST(RegFileTest, WhatIsExportedIsReadAgainAsTheSame) {
  HiveBuilder hive;
  const auto system = hive.Key(RegistryTree::kRoot, u"SYSTEM");
  const auto key = hive.Key(system, u"odd ] [ name");
  hive.Key(system, u"empty");
  hive.String(key, u"quotes \" and \\", u"C:\\x \"y\"");
  hive.String(key, u"", u"default");
  hive.String(key, u"lines", u"a\r\nb");
  hive.String(key, u"emoji 😀", u"😀");
  hive.Value(key, u"half", ValueType::kString, Terminated(std::u16string{char16_t{0xD83D}}));
  hive.Value(key, u"no end", ValueType::kString, Utf16(u"x"));
  hive.Value(key, u"long", ValueType::kBinary, std::vector<std::byte>(100, std::byte{0xA5}));
  hive.Value(key, u"none", ValueType::kNone, {});
  hive.Dword(key, u"dword", 7);
  hive.Value(key, u"short dword", ValueType::kDword, LittleEndian(7, 3));
  const std::string text = RegFileOf(hive.tree()).value();
  ImcSettings settings = NewSettings();
  const absl::Status status = AddRegFile("out.reg", Bytes(text), settings);
  ASSERT_TRUE(status.ok()) << status << "\n" << text;
  EXPECT_EQ(RegFileOf(settings.tree()).value(), text);
  EXPECT_THAT(text, HasSubstr("[HKEY_LOCAL_MACHINE\\SYSTEM\\empty]"));
  const auto read = settings.tree().FindKey(
      settings.tree().FindKey(RegistryTree::kRoot, u"SYSTEM").value(), u"odd ] [ name");
  ASSERT_TRUE(read.has_value());
  const auto& values = settings.tree().key(*read).values;
  const auto& written = hive.tree().key(key).values;
  ASSERT_EQ(values.size(), written.size());
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i].data, written[i].data) << i;
}

}  // namespace
}  // namespace vmbfs::hive
