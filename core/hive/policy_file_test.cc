#include "core/hive/policy_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "core/hive/hive_builder.h"

namespace vmbfs::hive {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

using Bytes = std::vector<std::byte>;

// A file as the format's page has it: marks and text are UTF-16, text ends with
// a NUL, numbers have 32 bits.
class PolicyFile {
 public:
  PolicyFile() { Append(LittleEndian(0x0000'0001'6765'5250, 8)); }

  PolicyFile& Entry(std::u16string_view key, std::u16string_view value, uint32_t type,
                    const Bytes& data) {
    Append(Utf16(u"["));
    Append(Terminated(key));
    Append(Utf16(u";"));
    Append(Terminated(value));
    Append(Utf16(u";"));
    Append(LittleEndian(type, 4));
    Append(Utf16(u";"));
    Append(LittleEndian(data.size(), 4));
    Append(Utf16(u";"));
    Append(data);
    Append(Utf16(u"]"));
    return *this;
  }
  const Bytes& bytes() const { return bytes_; }

 private:
  void Append(const Bytes& more) { bytes_.insert(bytes_.end(), more.begin(), more.end()); }
  Bytes bytes_;
};

std::string ErrorOf(const Bytes& bytes) {
  ImcSettings settings = ImcSettings::Create({}).value();
  return std::string(AddPolicyFile("registry.pol", bytes, settings).message());
}

// Bytes that were written by hand from the format's page, not by the class above.
TEST(PolicyFileTest, AFileByHandIsUnderstoodByteForByte) {
  const std::string_view bytes(
      "PReg\x01\0\0\0"
      "[\0S\0Y\0S\0T\0E\0M\0\\\0x\0\0\0;\0a\0\0\0;\0\x04\0\0\0;\0\x04\0\0\0;\0\x5d\0\0\0]\0",
      54);
  const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
  ImcSettings settings = ImcSettings::Create({}).value();
  const absl::Status status =
      AddPolicyFile("registry.pol", Bytes(data, data + bytes.size()), settings);
  ASSERT_TRUE(status.ok()) << status;
  const auto& tree = settings.tree();
  const auto key = tree.FindKey(tree.FindKey(RegistryTree::kRoot, u"SYSTEM").value(), u"x");
  ASSERT_TRUE(key.has_value());
  ASSERT_EQ(tree.key(*key).values.size(), 1u);
  EXPECT_EQ(tree.key(*key).values[0].name, u"a");
  EXPECT_EQ(tree.key(*key).values[0].type, ValueType::kDword);
  EXPECT_EQ(tree.key(*key).values[0].data, LittleEndian(0x5D, 4));
}

TEST(PolicyFileTest, ValuesOfAKeyMayStandApartAndAKeyMayHaveNone) {
  const PolicyFile file =
      PolicyFile()
          .Entry(u"System\\CurrentControlSet\\x", u"a", 1, Terminated(u"text;]["))
          .Entry(u"System\\Setup", u"", 0, {})
          .Entry(u"SYSTEM\\currentcontrolset\\X", u"", 3, LittleEndian(7, 1));
  ImcSettings settings = ImcSettings::Create({}).value();
  const absl::Status status = AddPolicyFile("registry.pol", file.bytes(), settings);
  ASSERT_TRUE(status.ok()) << status;
  const auto& tree = settings.tree();
  const auto system = tree.FindKey(RegistryTree::kRoot, u"SYSTEM").value();
  EXPECT_TRUE(tree.key(tree.FindKey(system, u"Setup").value()).values.empty());
  const auto set = tree.FindKey(system, u"CurrentControlSet").value();
  const auto& values = tree.key(tree.FindKey(set, u"x").value()).values;
  ASSERT_EQ(values.size(), 2u);
  EXPECT_EQ(values[0].data, Terminated(u"text;]["));
  EXPECT_EQ(values[1].name, u"");
}

TEST(PolicyFileTest, EveryEntryThatAnImcHiveCannotHaveIsNamedByItsOffset) {
  const PolicyFile file = PolicyFile()
                              .Entry(u"Software\\Policies\\x", u"a", 4, LittleEndian(1, 4))
                              .Entry(u"System\\x", u"**del.a", 1, Terminated(u" "))
                              .Entry(u"System\\x", u"**DelVals.", 1, Terminated(u" "))
                              .Entry(u"System\\x", u"**soft.a", 4, LittleEndian(1, 4))
                              .Entry(u"System\\ControlSet001\\x", u"a", 4, LittleEndian(1, 4))
                              .Entry(u"HKLM\\System\\x", u"a", 4, LittleEndian(1, 4))
                              .Entry(u"System\\x", u"a", 4, LittleEndian(1, 4))
                              .Entry(u"System\\X", u"A", 4, LittleEndian(1, 4));
  const std::string errors = ErrorOf(file.bytes());
  EXPECT_THAT(errors, StartsWith("registry.pol: 0x8: key Software\\Policies\\x: Windows takes"));
  EXPECT_THAT(errors, HasSubstr("\nregistry.pol: 0x4c: **del.a: deleting is not possible"));
  EXPECT_THAT(errors, HasSubstr("**DelVals.: deleting is not possible"));
  EXPECT_THAT(errors, HasSubstr("**soft.a: this order of group policies"));
  EXPECT_THAT(errors, HasSubstr("--rewrite-control-sets"));
  EXPECT_THAT(errors, HasSubstr("key HKLM\\System\\x: Windows takes"));
  EXPECT_THAT(errors, HasSubstr("value A is there already"));
  EXPECT_EQ(std::count(errors.begin(), errors.end(), '\n'), 6);
}

TEST(PolicyFileTest, ErrorsBeyondAHundredAreOneLine) {
  PolicyFile file;
  for (int i = 0; i < 1000; ++i) file.Entry(u"Software", u"a", 4, LittleEndian(1, 4));
  const std::string errors = ErrorOf(file.bytes());
  EXPECT_EQ(std::count(errors.begin(), errors.end(), '\n'), 100);
  EXPECT_THAT(errors, HasSubstr("there is more of this kind"));
}

TEST(PolicyFileTest, EveryTruncationIsRefused) {
  const Bytes whole = PolicyFile().Entry(u"System\\x", u"a", 4, LittleEndian(1, 4)).bytes();
  ASSERT_EQ(ErrorOf(whole), "");
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    if (bytes == 8) continue;  // a file without entries
    EXPECT_NE(ErrorOf({whole.begin(), whole.begin() + static_cast<ptrdiff_t>(bytes)}), "") << bytes;
  }
}

TEST(PolicyFileTest, ABrokenFormIsNamedByItsOffset) {
  const Bytes whole = PolicyFile().Entry(u"System\\x", u"a", 4, LittleEndian(1, 4)).bytes();
  const auto broken = [&whole](size_t position, uint8_t byte) {
    Bytes bytes = whole;
    bytes.at(position) = std::byte{byte};
    return ErrorOf(bytes);
  };
  EXPECT_EQ(broken(0, 'p'), "registry.pol: 0x0: it does not begin with `PReg`");
  EXPECT_EQ(broken(4, 2), "registry.pol: 0x4: its version is not 1");
  EXPECT_EQ(broken(8, '{'), "registry.pol: 0x8: `[` is expected");
  EXPECT_EQ(broken(28, ','), "registry.pol: 0x1c: `;` is expected");
  // Sizes that leave the file, as a whole and by one byte.
  EXPECT_EQ(broken(43, 0xFF), "registry.pol: 0x2a: 65284 bytes of data leave the file");
  EXPECT_THAT(broken(42, 7), HasSubstr("7 bytes of data leave the file"));
  EXPECT_EQ(broken(42, 3), "registry.pol: 0x33: `]` is expected");
}

}  // namespace
}  // namespace vmbfs::hive
