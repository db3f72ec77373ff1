#include "core/hive/json_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/hive/hive_builder.h"
#include "core/hive/hive_writer.h"
#include "core/hive/json_document.h"

namespace vmbfs::hive {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::vector<std::byte> Bytes(std::string_view text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

ImcSettings NewSettings() { return ImcSettings::Create({}).value(); }

std::string ErrorOf(std::string_view text) {
  ImcSettings settings = NewSettings();
  return std::string(AddJsonFile("in.json", Bytes(text), settings).message());
}

// The values of SYSTEM\x that a file makes.
std::vector<RegistryValue> ValuesOf(std::string_view text) {
  ImcSettings settings = NewSettings();
  const absl::Status status = AddJsonFile("in.json", Bytes(text), settings);
  EXPECT_TRUE(status.ok()) << status;
  const auto key = settings.tree().FindKey(
      settings.tree().FindKey(RegistryTree::kRoot, u"SYSTEM").value(), u"x");
  if (!key.has_value()) return {};
  return settings.tree().key(*key).values;
}

void ExpectData(std::string_view data, ValueType type, const std::vector<std::byte>& expected) {
  const auto values =
      ValuesOf(absl::StrCat("{\"keys\":{\"SYSTEM\\\\x\":{\"a\":", std::string(data), "}}}"));
  ASSERT_EQ(values.size(), 1u) << data;
  EXPECT_EQ(values[0].name, u"a");
  EXPECT_EQ(values[0].type, type) << data;
  EXPECT_EQ(values[0].data, expected) << data;
}

TEST(CompactFormTest, EveryTypeIsUnderstood) {
  ExpectData("{\"sz\":\"C:\\\\x\"}", ValueType::kString, Terminated(u"C:\\x"));
  ExpectData("{\"sz\":\"\"}", ValueType::kString, Terminated(u""));
  ExpectData("{\"expand\":\"%x% 😀\"}", ValueType::kExpandString, Terminated(u"%x% 😀"));
  ExpectData("{\"multi\":[\"a\",\"b\"]}", ValueType::kMultiString,
             Utf16(std::u16string_view(u"a\0b\0\0", 5)));
  ExpectData("{\"multi\":[]}", ValueType::kMultiString, Terminated(u""));
  ExpectData("{\"dword\":4294967295}", ValueType::kDword, LittleEndian(0xFFFFFFFF, 4));
  ExpectData("{\"qword\":18446744073709551615}", ValueType::kQword, LittleEndian(~0ull, 8));
  ExpectData("{\"binary\":\"00fF10\"}", ValueType::kBinary, LittleEndian(0x10FF00, 3));
  ExpectData("{\"none\":\"\"}", ValueType::kNone, {});
  ExpectData("{\"type\":4294901761,\"hex\":\"01\"}", ValueType{0xFFFF0001}, LittleEndian(1, 1));
  ExpectData("{\"base64\":\"AQID\",\"type\":5}", ValueType::kDwordBigEndian,
             LittleEndian(0x030201, 3));
}

TEST(CompactFormTest, ValuesKeepTheirOrderAndPathsMayBeginInFourWays) {
  for (const char* path : {"HKEY_LOCAL_MACHINE\\\\SYSTEM\\\\CurrentControlSet\\\\x",
                           "HKLM\\\\system\\\\CurrentControlSet\\\\x",
                           "SYSTEM\\\\CurrentControlSet\\\\x", "currentcontrolset\\\\x"}) {
    ImcSettings settings = NewSettings();
    const absl::Status status = AddJsonFile(
        "in.json",
        Bytes(absl::StrCat("{\"keys\": {\"", path,
                           "\": {\"z\": {\"dword\": 1}, \"\": {\"dword\": 2}, \"a\": {\"dword\": "
                           "3}}}}")),
        settings);
    ASSERT_TRUE(status.ok()) << status;
    const auto system = settings.tree().FindKey(RegistryTree::kRoot, u"SYSTEM").value();
    const auto set = settings.tree().FindKey(system, u"CurrentControlSet");
    ASSERT_TRUE(set.has_value()) << path;
    const auto& values = settings.tree().key(settings.tree().FindKey(*set, u"x").value()).values;
    ASSERT_EQ(values.size(), 3u);
    EXPECT_EQ(values[0].name + u"," + values[1].name + u"," + values[2].name, u"z,,a");
  }
}

TEST(CompactFormTest, ASequenceTakesThePlaceOfTheDefaultAndOfNothingElse) {
  const std::vector<std::byte> five = Bytes("{\"sequence\": 5}");
  ImcSettings settings = NewSettings();
  ASSERT_TRUE(AddJsonFile("in.json", five, settings).ok());
  EXPECT_EQ(settings.tree().key(RegistryTree::kRoot).values.front().data, LittleEndian(5, 4));
  EXPECT_TRUE(AddJsonFile("again.json", five, settings).ok());
  EXPECT_EQ(AddJsonFile("other.json", Bytes("{\"sequence\": 6}"), settings).message(),
            "other.json:1:14: sequence 6, and 5 was given before");
  ImcSettings other = ImcSettings::Create({.sequence = 7}).value();
  EXPECT_THAT(std::string(AddJsonFile("in.json", five, other).message()), HasSubstr("7 was given"));
  // The default's number, but given.
  ImcSettings two = ImcSettings::Create({.sequence = 2}).value();
  EXPECT_THAT(std::string(AddJsonFile("in.json", five, two).message()), HasSubstr("2 was given"));
  EXPECT_THAT(ErrorOf("{\"sequence\": 1}"), HasSubstr("--force"));
}

TEST(CompactFormTest, AControlSetWithANumberIsRefusedWithAWayOut) {
  for (const std::string path : {"ControlSet001\\\\x", "SYSTEM\\\\controlset001\\\\x"}) {
    EXPECT_THAT(ErrorOf("{\"keys\": {\"" + path + "\": {}}}"), HasSubstr("--rewrite-control-sets"));
  }
}

TEST(RegistryChangesTest, NullListsAreEmptyOnes) {
  ImcSettings settings = NewSettings();
  EXPECT_TRUE(
      AddJsonFile("in.json", Bytes("{\"DeleteKeys\": null, \"AddValues\": null}"), settings).ok());
  EXPECT_NE(ErrorOf("{\"RegistryChanges\": null}"), "");
}

TEST(RegistryChangesTest, EveryTypeOfTheSchemaIsUnderstood) {
  const auto values = ValuesOf(R"({"RegistryChanges": {"AddValues": [
      {"Key": {"Hive": "System", "Name": "x"}, "Name": "s", "Type": "String", "StringValue": "t"},
      {"Key": {"Hive": "System", "Name": "X", "Volatile": false}, "Name": "e",
       "Type": "ExpandedString", "StringValue": "%t%"},
      {"Key": {"Hive": "System", "Name": "x"}, "Name": "m", "Type": "MultiString",
       "StringValue": "a\u0000b\u0000\u0000"},
      {"Key": {"Hive": "System", "Name": "x"}, "Name": "b", "Type": "Binary",
       "BinaryValue": "AQID"},
      {"Key": {"Hive": "System", "Name": "x"}, "Name": "d", "Type": "DWord", "DWordValue": 7},
      {"Key": {"Hive": "System", "Name": "x"}, "Name": "q", "Type": "QWord",
       "QWordValue": 4294967296},
      {"Key": {"Hive": "System", "Name": "x"}, "Name": "c", "Type": "CustomType",
       "CustomType": 99, "BinaryValue": ""},
      {"Key": {"Hive": "System", "Name": "x"}, "Type": "None"}], "DeleteKeys": []}})");
  ASSERT_EQ(values.size(), 8u);
  EXPECT_EQ(values[0].data, Terminated(u"t"));
  EXPECT_EQ(values[1].type, ValueType::kExpandString);
  EXPECT_EQ(values[1].data, Terminated(u"%t%"));
  EXPECT_EQ(values[2].type, ValueType::kMultiString);
  EXPECT_EQ(values[2].data, Utf16(std::u16string_view(u"a\0b\0\0", 5)));
  EXPECT_EQ(values[3].type, ValueType::kBinary);
  EXPECT_EQ(values[3].data, LittleEndian(0x030201, 3));
  EXPECT_EQ(values[4].type, ValueType::kDword);
  EXPECT_EQ(values[4].data, LittleEndian(7, 4));
  EXPECT_EQ(values[5].type, ValueType::kQword);
  EXPECT_EQ(values[5].data, LittleEndian(uint64_t{1} << 32, 8));
  EXPECT_EQ(values[6].type, ValueType{99});
  EXPECT_EQ(values[7].type, ValueType::kNone);
  EXPECT_EQ(values[7].name, u"");
}

// An item of AddValues with these members beside a good key and name.
std::string ChangeError(std::string_view members) {
  return ErrorOf(absl::StrCat(
      "{\"AddValues\":[{\"Key\":{\"Hive\":\"System\",\"Name\":\"x\"},\"Name\":\"a\",\n",
      std::string(members), "}]}"));
}

TEST(RegistryChangesTest, WhatAnImcHiveCannotHoldIsRefused) {
  EXPECT_THAT(ErrorOf("{\"DeleteKeys\": [{}]}"),
              StartsWith("in.json:1:16: deleting keys is not possible"));
  EXPECT_THAT(ErrorOf("{\"AddValues\":[{\"Key\":{\"Hive\":\"Software\",\"Name\":\"x\"}}]}"),
              HasSubstr("the hive `System` only"));
  EXPECT_THAT(ErrorOf("{\"AddValues\":[{\"Key\":{\"Hive\":\"System\",\"Name\":\"x\",\n"
                      "\"Volatile\":true}}]}"),
              StartsWith("in.json:2:12: a hive cannot hold volatile"));
  EXPECT_THAT(
      ErrorOf("{\"AddValues\":[{\"Key\":{\"Hive\":\"System\",\"Name\":\"ControlSet001\\\\x\"}}]}"),
      HasSubstr("--rewrite-control-sets"));
}

TEST(RegistryChangesTest, ExactlyTheDataOfTheTypeIsTaken) {
  EXPECT_THAT(ChangeError("\"Type\":\"DWord\""), HasSubstr("`DWordValue` is missing"));
  EXPECT_EQ(ChangeError("\"Type\":\"DWord\",\"StringValue\":\"1\""),
            "in.json:2:30: StringValue does not fit the value's `Type`");
  EXPECT_THAT(ChangeError("\"Type\":\"DWord\",\"DWordValue\":1,\"QWordValue\":1"),
              HasSubstr("QWordValue does not fit"));
  EXPECT_THAT(ChangeError("\"Type\":\"None\",\"StringValue\":\"1\""), HasSubstr("does not fit"));
  EXPECT_THAT(ChangeError("\"Type\":\"DWord\",\"DWordValue\":4294967296"),
              HasSubstr("at most 4294967295"));
  EXPECT_THAT(ChangeError("\"Type\":\"DWord\",\"DWordValue\":1,\"CustomType\":4"),
              HasSubstr("`CustomType` goes with"));
  EXPECT_THAT(ChangeError("\"Type\":\"dword\""), HasSubstr("`Type` is one of"));
  EXPECT_THAT(ChangeError("\"Type\":\"Binary\",\"BinaryValue\":\"%\""), HasSubstr("base64"));
  EXPECT_THAT(ChangeError("\"Type\":\"String\",\"StringValue\":\"a\\u0000b\""), HasSubstr("NUL"));
  EXPECT_THAT(ChangeError("\"Type\":\"None\",\"Other\":1"), HasSubstr("`Other` is not known"));
}

TEST(JsonFileTest, MistakesAreNamedByFileLineAndColumn) {
  EXPECT_THAT(ErrorOf(""), StartsWith("in.json:1:1: syntax error"));
  EXPECT_EQ(ErrorOf("{\"keys\": {}} x"),
            "in.json:1:14: syntax error while parsing value - "
            "invalid literal");
  EXPECT_THAT(ErrorOf("{\n  \"keys\": {\n    \"é\" 1\n"), StartsWith("in.json:3:9: syntax"));
  EXPECT_THAT(ErrorOf("[]"), StartsWith("in.json:1:1: an object with `keys`"));
  EXPECT_THAT(ErrorOf("{\"keys\": 3}"), StartsWith("in.json:1:10: an object of keys"));
  EXPECT_THAT(ErrorOf("{\"key\": 3}"), StartsWith("in.json:1:1: an object with `keys`"));
  EXPECT_THAT(ErrorOf("{\"keys\": {}, \"more\": 1}"), StartsWith("in.json:1:22: member `more`"));
  EXPECT_THAT(ErrorOf("{\"keys\": {\"HKLM\\\\SOFTWARE\": {}}}"),
              StartsWith("in.json:1:29: key HKLM\\SOFTWARE: Windows takes"));
  EXPECT_THAT(ErrorOf("{\"keys\": {\"SYSTEM\\\\x\": {\"a\": 1}}}"),
              StartsWith("in.json:1:30: an object such as"));
  EXPECT_THAT(ErrorOf("{\"keys\": {\"SYSTEM\\\\x\": {\"a\": {\"word\": 1}}}}"),
              HasSubstr("there are: sz, expand, multi, dword"));
  EXPECT_THAT(ErrorOf("{\"sequence\": -2}"), StartsWith("in.json:1:14: a number is negative"));
  EXPECT_THAT(ErrorOf("{\"sequence\" :\t2.5 }"), StartsWith("in.json:1:15: a number is not whole"));
  EXPECT_THAT(ErrorOf("{\"sequence\": 18446744073709551616}"), HasSubstr("does not fit 64 bits"));
  EXPECT_THAT(ErrorOf("{\"keys\": {\"SYSTEM\\\\x\": {\"a\": {\"binary\": \"0\"}}}}"),
              HasSubstr("pairs of hexadecimal"));
  EXPECT_THAT(ErrorOf("{\"keys\": {\"SYSTEM\\\\x\": {\"a\": {\"multi\": [\"\"]}}}}"),
              HasSubstr("would end the list"));
  EXPECT_THAT(ErrorOf("{\"keys\": {\"SYSTEM\\\\x\": {\"\\ud800\": {\"dword\": 1}}}}"),
              HasSubstr("surrogate"));
}

TEST(JsonFileTest, WhatWasThereBeforeIsRefusedInAnyCase) {
  EXPECT_EQ(ErrorOf("{\"keys\": {},\n\"keys\": {}}"),
            "in.json:2:1: this member was there before in its object");
  EXPECT_THAT(ErrorOf("{\"keys\": {\"SYSTEM\\\\x\": {},\n\"hklm\\\\system\\\\X\": {}}}"),
              StartsWith("in.json:2:20: this key was there before"));
  EXPECT_THAT(ErrorOf("{\"keys\": {\"SYSTEM\\\\x\": {\"a\": {\"dword\": 1},\n"
                      "\"A\": {\"dword\": 1}}}}"),
              AllOf(StartsWith("in.json:2:6: value A is there already"),
                    HasSubstr("given at in.json:1:30")));
  EXPECT_THAT(ErrorOf(R"({"AddValues":[
{"Key":{"Hive":"System","Name":"x"},"Name":"a","Type":"None"},
{"Key":{"Hive":"System","Name":"X"},"Name":"A","Type":"None"}]})"),
              AllOf(StartsWith("in.json:3:1: value A is there already"),
                    HasSubstr("given at in.json:2:1")));
}

TEST(JsonFileTest, DeletionsAreRefused) {
  EXPECT_THAT(ErrorOf("{\"keys\": {\"SYSTEM\\\\x\": null}}"), HasSubstr("deleting a key"));
  EXPECT_THAT(ErrorOf("{\"keys\": {\"SYSTEM\\\\x\": {\"a\": null}}}"),
              HasSubstr("deleting a value"));
}

// The library that parses ends at a NUL.
TEST(JsonFileTest, TextBehindANulIsNotOverlooked) {
  EXPECT_EQ(ErrorOf(std::string_view("{\"keys\": {}}\n\0 x", 16)), "in.json:2:1: a NUL");
}

TEST(JsonFileTest, DepthAndNumberOfValuesAreBounded) {
  EXPECT_THAT(ErrorOf("{\"keys\":" + std::string(1'000'000, '[')), HasSubstr("16 levels"));
  std::string many = "{\"keys\":[0";
  for (size_t i = 0; i < kJsonNodesMax; ++i) many += ",0";
  EXPECT_THAT(ErrorOf(many), HasSubstr("more than 1000000 values"));
}

TEST(JsonFileTest, BytesMayBeUtf16WithAMarkOrUtf8WithOne) {
  const std::u16string text = u"{\"keys\": {\"SYSTEM\\\\x\": {\"é😀\": {\"dword\": 1}}}}";
  const std::string utf8 = "{\"keys\": {\"SYSTEM\\\\x\": {\"é😀\": {\"dword\": 1}}}}";
  const auto utf16 = Utf16(u"\uFEFF" + text);
  for (const auto& bytes : {utf16, Bytes("\xEF\xBB\xBF" + utf8), Bytes(utf8)}) {
    ImcSettings settings = NewSettings();
    ASSERT_TRUE(AddJsonFile("in.json", bytes, settings).ok());
    const auto key = settings.tree().FindKey(
        settings.tree().FindKey(RegistryTree::kRoot, u"SYSTEM").value(), u"x");
    EXPECT_EQ(settings.tree().key(key.value()).values.front().name, u"é😀");
  }
  EXPECT_THAT(ErrorOf("{\"\xFF\": 1}"), HasSubstr("neither UTF-8"));
  ImcSettings settings = NewSettings();
  EXPECT_THAT(
      std::string(
          AddJsonFile("in.json", Utf16(u"\uFEFF{" + std::u16string{0xD800}), settings).message()),
      HasSubstr("half of a surrogate pair"));
}

TEST(JsonFileTest, WhatIsExportedMakesTheSameHive) {
  HiveBuilder hive;
  hive.Dword(RegistryTree::kRoot, u"Sequence", 9);
  const auto system = hive.Key(RegistryTree::kRoot, u"SYSTEM");
  const auto key = hive.Key(system, u"odd \" ] [ / name\x1b\n");
  hive.Key(system, u"empty");
  hive.String(key, u"quotes \" and \\", u"C:\\x \"y\"\r\n");
  hive.String(key, u"", u"default");
  hive.String(key, u"emoji 😀", u"%😀%", ValueType::kExpandString);
  hive.Value(key, u"half", ValueType::kString, Terminated(std::u16string{char16_t{0xD83D}}));
  hive.Value(key, u"no end", ValueType::kString, Utf16(u"x"));
  hive.Value(key, u"inner NUL", ValueType::kString, Utf16(std::u16string_view(u"a\0b\0", 4)));
  hive.Value(key, u"multi", ValueType::kMultiString, Utf16(std::u16string_view(u"a\0b\0\0", 5)));
  hive.Value(key, u"no strings", ValueType::kMultiString, Terminated(u""));
  hive.Value(key, u"two NULs", ValueType::kMultiString, Terminated(std::u16string(1, u'\0')));
  hive.Value(key, u"bytes", ValueType::kBinary, LittleEndian(0xA500FF, 3));
  hive.Value(key, u"none", ValueType::kNone, {});
  hive.Value(key, u"qword", ValueType::kQword, LittleEndian(~0ull, 8));
  hive.Value(key, u"short dword", ValueType::kDword, LittleEndian(7, 3));
  hive.Value(key, u"big endian", ValueType::kDwordBigEndian, LittleEndian(7, 4));
  hive.Value(key, u"strange", ValueType{0x12345678}, LittleEndian(7, 5));
  const std::string text = JsonFileOf(hive.tree()).value();
  ImcSettings settings = NewSettings();
  const absl::Status status = AddJsonFile("out.json", Bytes(text), settings);
  ASSERT_TRUE(status.ok()) << status << "\n" << text;
  EXPECT_EQ(WriteHive(settings.tree())->bytes, WriteHive(hive.tree())->bytes) << text;
  EXPECT_THAT(text,
              StartsWith("{\n  \"sequence\": 9,\n  \"keys\": {\n    \"SYSTEM\\\\empty\": {},\n"));
}

TEST(JsonFileTest, AHiveThatIsNoneOfOursIsShownWhole) {
  HiveBuilder hive;
  hive.String(RegistryTree::kRoot, u"Sequence", u"x");
  hive.Key(RegistryTree::kRoot, std::u16string{u'k', char16_t{0xD800}});
  EXPECT_EQ(JsonFileOf(hive.tree()).value(),
            "{\n  \"keys\": {\n    \"\": {\n      \"Sequence\": {\"sz\": \"x\"}\n    },\n"
            "    \"k\\ud800\": {}\n  }\n}\n");
  EXPECT_EQ(JsonFileOf(RegistryTree()).value(), "{\n  \"keys\": {}\n}\n");
}

}  // namespace
}  // namespace vmbfs::hive
