#include "core/path/guest_path.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace vmbfs {
namespace {

std::vector<std::byte> Utf16Le(std::u16string_view text) {
  std::vector<std::byte> bytes;
  for (const char16_t unit : text) {
    bytes.push_back(static_cast<std::byte>(unit & 0xFF));
    bytes.push_back(static_cast<std::byte>(unit >> 8));
  }
  return bytes;
}

absl::StatusOr<GuestPath> Parse(std::u16string_view text) {
  return GuestPath::Parse(Utf16Le(text));
}

std::u16string Resolved(std::u16string_view text) {
  const absl::StatusOr<GuestPath> path = Parse(text);
  if (!path.ok()) return u"refused";
  if (path->above_root()) return u"above root";
  return std::u16string(path->text());
}

bool IsRefused(std::u16string_view text) {
  return Parse(text).status().code() == absl::StatusCode::kInvalidArgument;
}

TEST(GuestPathTest, EveryWayToWriteANameGivesTheName) {
  for (const std::u16string_view text :
       {u"imc.hiv", u"\\imc.hiv", u"/imc.hiv", u"\\\\imc.hiv", u"imc.hiv\\", u".\\imc.hiv",
        u"\\.\\.\\imc.hiv", u"a\\..\\imc.hiv", u"\\a\\b/../..\\imc.hiv/", u"imc.hiv\\."}) {
    EXPECT_EQ(Resolved(text), u"imc.hiv");
  }
}

TEST(GuestPathTest, PiecesAreJoinedBySlashesInTheGuestsOwnCase) {
  EXPECT_EQ(Resolved(u"\\EFI\\Boot//bootX64.efi"), u"EFI/Boot/bootX64.efi");
  EXPECT_EQ(Resolved(u"a\\b\\..\\c"), u"a/c");
  EXPECT_EQ(Resolved(u"...\\..a\\b..\\.c"), u".../..a/b../.c");
}

TEST(GuestPathTest, EveryWayToWriteTheRootIsTheRoot) {
  for (const std::u16string_view text :
       {u"", u"\\", u"/", u".", u"\\.", u"a\\..", u"a/b/../..", u"//\\"}) {
    const absl::StatusOr<GuestPath> path = Parse(text);
    ASSERT_TRUE(path.ok());
    EXPECT_TRUE(path->is_root());
    EXPECT_FALSE(path->above_root());
  }
}

TEST(GuestPathTest, DotsAboveTheRootStayAboveIt) {
  for (const std::u16string_view text :
       {u"..", u"\\..", u"..\\imc.hiv", u"a\\..\\..\\imc.hiv", u"..\\a\\..", u"a/../../a"}) {
    const absl::StatusOr<GuestPath> path = Parse(text);
    ASSERT_TRUE(path.ok());
    EXPECT_TRUE(path->above_root());
    EXPECT_FALSE(path->is_root());
    EXPECT_TRUE(path->text().empty());
  }
}

TEST(GuestPathTest, OneNulAtTheEndIsDroppedAndAnyOtherRefused) {
  EXPECT_EQ(Resolved(std::u16string_view(u"imc.hiv\0", 8)), u"imc.hiv");
  EXPECT_EQ(Resolved(std::u16string_view(u"\0", 1)), u"");
  EXPECT_TRUE(IsRefused(std::u16string_view(u"imc.hiv\0\0", 9)));
  EXPECT_TRUE(IsRefused(std::u16string_view(u"\0imc.hiv", 8)));
  EXPECT_TRUE(IsRefused(std::u16string_view(u"imc\0hiv", 7)));
  // Also behind a way out of the tree: the path is malformed before it leads nowhere.
  EXPECT_TRUE(IsRefused(std::u16string_view(u"..\\\0a", 5)));
}

TEST(GuestPathTest, AnOddLengthIsRefused) {
  std::vector<std::byte> bytes = Utf16Le(u"imc.hiv");
  bytes.pop_back();
  EXPECT_EQ(GuestPath::Parse(bytes).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(GuestPath::Parse(std::vector<std::byte>(1)).ok());
}

TEST(GuestPathTest, UnpairedSurrogatesAreRefused) {
  const char16_t high = 0xD83D;
  const char16_t low = 0xDE00;
  const auto text = [](std::initializer_list<char16_t> units) { return std::u16string(units); };
  EXPECT_EQ(Resolved(text({high, low})), text({high, low}));
  EXPECT_EQ(Resolved(text({u'a', high, low, u'\\', high, low})),
            text({u'a', high, low, u'/', high, low}));
  EXPECT_TRUE(IsRefused(text({high})));
  EXPECT_TRUE(IsRefused(text({low})));
  EXPECT_TRUE(IsRefused(text({high, u'a'})));
  EXPECT_TRUE(IsRefused(text({high, u'\\', low})));
  EXPECT_TRUE(IsRefused(text({low, high})));
  EXPECT_TRUE(IsRefused(text({high, high, low})));
  EXPECT_TRUE(IsRefused(text({high, low, low})));
  EXPECT_TRUE(IsRefused(text({high, 0})));
}

TEST(GuestPathTest, APieceOf255UnitsPassesAndOneOf256IsRefused) {
  const std::u16string longest(255, u'x');
  EXPECT_EQ(Resolved(longest), longest);
  EXPECT_EQ(Resolved(u"\\" + longest + u"\\" + longest), longest + u"/" + longest);
  EXPECT_TRUE(IsRefused(longest + u"x"));
  EXPECT_TRUE(IsRefused(u"a\\" + longest + u"x\\b"));
  // Resolving would drop it.
  EXPECT_TRUE(IsRefused(longest + u"x\\..\\a"));
  EXPECT_TRUE(IsRefused(u"..\\" + longest + u"x"));
}

TEST(GuestPathTest, APathOf4096UnitsPassesAndOneOf4097IsRefused) {
  std::u16string text;
  while (text.size() < kPathUnitsMax) text += u"abcdefg\\";
  ASSERT_EQ(text.size(), 4096u);
  EXPECT_EQ(Resolved(text).size(), 4095u);
  EXPECT_TRUE(IsRefused(text + u"a"));
  EXPECT_TRUE(IsRefused(std::u16string(4097, u'\\')));
}

TEST(GuestPathTest, ManyDotsResolveWithinTheBounds) {
  std::u16string text;
  for (int i = 0; i < 800; ++i) text += u"a\\..\\";
  EXPECT_EQ(Resolved(text), u"");
  EXPECT_EQ(Resolved(text + u"b"), u"b");
}

TEST(GuestPathTest, Utf8FollowsTheSameRules) {
  const absl::StatusOr<GuestPath> path = GuestPath::FromUtf8("/EFI\\../sübdir/😀.efi");
  ASSERT_TRUE(path.ok());
  EXPECT_EQ(path->text(), u"sübdir/😀.efi");
  EXPECT_TRUE(GuestPath::FromUtf8("").value().is_root());
  EXPECT_TRUE(GuestPath::FromUtf8("../a").value().above_root());
  EXPECT_FALSE(GuestPath::FromUtf8(std::string(256, 'x')).ok());
  EXPECT_FALSE(GuestPath::FromUtf8(std::string(4097, '/')).ok());
  EXPECT_FALSE(GuestPath::FromUtf8(std::string(1 << 20, 'x')).ok());
  for (const char* invalid : {"\x80", "\xC3", "\xC0\xAF", "\xED\xA0\x80", "\xF8\x88\x80\x80\x80"}) {
    EXPECT_EQ(GuestPath::FromUtf8(invalid).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace vmbfs
