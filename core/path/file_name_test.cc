#include <gtest/gtest.h>

#include <string>

#include "absl/status/status.h"
#include "core/path/guest_path.h"

namespace vmbfs {
namespace {

TEST(FileNameTest, OrdinaryNamesPass) {
  EXPECT_EQ(FileNameFromUtf8("imc.hiv").value(), u"imc.hiv");
  EXPECT_EQ(FileNameFromUtf8("Grüße 😀").value(), u"Grüße 😀");
  EXPECT_EQ(FileNameFromUtf8("...").value(), u"...");
  EXPECT_EQ(FileNameFromUtf8(std::string(255, 'x')).value().size(), 255u);
}

TEST(FileNameTest, NamesThatATreeCannotHoldAreRefused) {
  using std::string_literals::operator""s;
  for (const std::string& name :
       {""s, "."s, ".."s, "a/b"s, "a\\b"s, "/"s, "a\0b"s, "\0"s, "a\nb"s, "a\x1F"s, "a\x7F"s,
        "\u0085"s, "\xFF"s, std::string(256, 'x'), std::string(1 << 20, 'x')}) {
    const absl::Status status = FileNameFromUtf8(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name.size();
    EXPECT_FALSE(status.message().empty());
  }
}

TEST(Utf8FromUtf16Test, InvalidUnitsBecomeTheReplacementCharacter) {
  EXPECT_EQ(Utf8FromUtf16(u"a/ü/😀"), "a/ü/😀");
  EXPECT_EQ(Utf8FromUtf16(u""), "");
  EXPECT_EQ(Utf8FromUtf16(std::u16string{u'a', char16_t{0xD800}, u'b'}), "a\uFFFDb");
}

}  // namespace
}  // namespace vmbfs
