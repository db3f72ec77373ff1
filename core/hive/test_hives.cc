#include "core/hive/test_hives.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/hive/hive_builder.h"

namespace vmbfs::hive {
namespace {

constexpr auto kRoot = RegistryTree::kRoot;

std::u16string Numbered(const char* name, size_t number) {
  const std::string text = absl::StrCat(name, number);
  return {text.begin(), text.end()};
}

std::vector<std::byte> Pattern(size_t bytes) {
  std::vector<std::byte> data(bytes);
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(i * 7 + i / 256 + bytes);
  return data;
}

RegistryTree EveryType() {
  HiveBuilder hive;
  hive.Dword(kRoot, u"Sequence", 2);
  const auto key = hive.Key(hive.Key(kRoot, u"SYSTEM"), u"types");
  hive.String(key, u"", u"the default value");
  hive.String(key, u"sz", u"text");
  hive.String(key, u"empty sz", u"");
  hive.String(key, u"expand", u"%SystemRoot%\\x", ValueType::kExpandString);
  hive.Value(key, u"multi", ValueType::kMultiString, Utf16(std::u16string_view(u"a\0b\0\0", 5)));
  hive.Value(key, u"no strings", ValueType::kMultiString, Terminated(u""));
  hive.Dword(key, u"dword", 0x12345678);
  hive.Value(key, u"big endian", ValueType::kDwordBigEndian, LittleEndian(0x78563412, 4));
  hive.Value(key, u"qword", ValueType::kQword, LittleEndian(0x0123456789ABCDEF, 8));
  hive.Value(key, u"link", ValueType::kLink, Utf16(u"\\Registry\\Machine\\x"));
  for (uint32_t type = 8; type <= 10; ++type) {
    hive.Value(key, Numbered("resource", type), static_cast<ValueType>(type), Pattern(20));
  }
  hive.Value(key, u"none", ValueType::kNone, {});
  hive.Value(key, u"strange type", ValueType{0x12345678}, Pattern(9));
  hive.String(key, u"text of many scripts", u"Größe жук 日本 😀");
  return hive.tree();
}

// Around each size where data changes its form.
RegistryTree EverySize() {
  HiveBuilder hive;
  for (const size_t bytes :
       {0, 1, 2, 3, 4, 5, 8, 16343, 16344, 16345, 32688, 32689, 102400, 1 << 20}) {
    hive.Value(kRoot, Numbered("v", bytes), ValueType::kBinary, Pattern(bytes));
  }
  hive.Value(kRoot, u"", ValueType::kNone, {});
  return hive.tree();
}

// The emoji sorts before full-width letters by units, behind them by code points.
RegistryTree EveryScript() {
  HiveBuilder hive;
  for (const auto* name : {u"Ｆｕｌｌ", u"\U0001F600", u"жук", u"Ähre", u"zebra", u"Apfel", u"_",
                           u"日本", u"a b", u"a,b\"c'", u"100%"}) {
    hive.Dword(hive.Key(kRoot, name), name, 1);
  }
  return hive.tree();
}

RegistryTree ManyKeysAndValues(size_t keys, size_t values) {
  HiveBuilder hive;
  const auto many = hive.Key(kRoot, u"many");
  for (size_t i = 0; i < keys; ++i) hive.Key(many, Numbered("key", i));
  for (size_t i = 0; i < values; ++i) {
    hive.Dword(many, Numbered("value", i), static_cast<uint32_t>(i));
  }
  return hive.tree();
}

RegistryTree Deep() {
  HiveBuilder hive;
  auto key = kRoot;
  while (hive.tree().key(key).depth < kDepthMax) {
    key = hive.Key(key, u"k");
    hive.Dword(key, u"depth", static_cast<uint32_t>(hive.tree().key(key).depth));
  }
  return hive.tree();
}

RegistryTree LongNames() {
  HiveBuilder hive;
  hive.Dword(hive.Key(kRoot, std::u16string(kKeyNameUnitsMax, u'k')), std::u16string(16'000, u'v'),
             1);
  hive.Key(kRoot, std::u16string(kKeyNameUnitsMax, u'日'));
  return hive.tree();
}

RegistryTree OneValue(size_t bytes) {
  HiveBuilder hive;
  hive.Value(kRoot, u"big", ValueType::kBinary, Pattern(bytes));
  return hive.tree();
}

}  // namespace

std::vector<TestHive> TestHives() {
  std::vector<TestHive> hives;
  hives.push_back({"empty", RegistryTree()});
  hives.push_back({"microsoft", MicrosoftsTree()});
  hives.push_back({"every_type", EveryType()});
  hives.push_back({"every_size", EverySize()});
  hives.push_back({"every_script", EveryScript()});
  for (const size_t keys : {507, 508, 1014, 1015, 50'000}) {
    hives.push_back({absl::StrCat("keys_", keys), ManyKeysAndValues(keys, keys / 5)});
  }
  hives.push_back({"deep", Deep()});
  hives.push_back({"long_names", LongNames()});
  const HiveWriteOptions roomy{.value_bytes_max = size_t{1} << 30,
                               .hive_bytes_max = size_t{1} << 30};
  for (const size_t mebibytes : {3, 64}) {
    hives.push_back(
        {absl::StrCat("value_", mebibytes, "_mebibytes"), OneValue(mebibytes << 20), roomy});
  }
  return hives;
}

}  // namespace vmbfs::hive
