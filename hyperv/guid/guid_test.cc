#include "hyperv/guid/guid.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

#include "absl/container/flat_hash_set.h"

namespace vmbfs::hyperv {
namespace {

constexpr std::string_view kText = "c376c1c3-d276-48d2-90a9-c04748072c60";
constexpr std::array<uint8_t, 16> kWire = {0xc3, 0xc1, 0x76, 0xc3, 0x76, 0xd2, 0xd2, 0x48,
                                           0x90, 0xa9, 0xc0, 0x47, 0x48, 0x07, 0x2c, 0x60};

static_assert(Guid::FromLiteral("c376c1c3-d276-48d2-90a9-c04748072c60") == Guid::Parse(kText));

TEST(GuidTest, TextBecomesTheWireBytesOfTheSpecification) {
  const auto guid = Guid::Parse(kText);
  ASSERT_TRUE(guid.has_value());
  for (size_t i = 0; i < kWire.size(); ++i) {
    EXPECT_EQ(guid->bytes[i], static_cast<std::byte>(kWire[i])) << "byte " << i;
  }
}

TEST(GuidTest, TextRoundTrips) {
  EXPECT_EQ(Guid::Parse(kText)->ToString(), kText);
  EXPECT_EQ(Guid().ToString(), "00000000-0000-0000-0000-000000000000");
}

TEST(GuidTest, UpperCaseIsRead) {
  EXPECT_EQ(Guid::Parse("C376C1C3-D276-48D2-90A9-C04748072C60"), Guid::Parse(kText));
}

TEST(GuidTest, MalformedTextIsRefused) {
  for (const std::string_view text : {
           "",
           "c376c1c3-d276-48d2-90a9-c04748072c6",
           "c376c1c3-d276-48d2-90a9-c04748072c600",
           "{c376c1c3-d276-48d2-90a9-c04748072c6}",
           "c376c1c3d276-48d2-90a9-c04748072c60-",
           "c376c1c3-d276-48d2-90a9-c04748072c6g",
           "c376c1c3-d276-48d2-90a9-c04748072c6 ",
           "c376c1c3_d276_48d2_90a9_c04748072c60",
           "-376c1c3-d276-48d2-90a9-c04748072c60",
       }) {
    EXPECT_EQ(Guid::Parse(text), std::nullopt) << text;
  }
}

TEST(GuidTest, EveryCharacterCounts) {
  const Guid guid = *Guid::Parse(kText);
  for (size_t i = 0; i < kText.size(); ++i) {
    if (kText[i] == '-') continue;
    std::string other(kText);
    other[i] = other[i] == '0' ? '1' : '0';
    EXPECT_NE(*Guid::Parse(other), guid) << other;
  }
}

TEST(GuidTest, EqualOnesHashAlikeAndAreOrderedByWireBytes) {
  absl::flat_hash_set<Guid> set = {*Guid::Parse(kText), Guid(), *Guid::Parse(kText)};
  EXPECT_EQ(set.size(), 2u);
  EXPECT_LT(Guid::FromLiteral("01000000-0000-0000-0000-000000000000"),
            Guid::FromLiteral("00000001-0000-0000-0000-000000000000"));
}

}  // namespace
}  // namespace vmbfs::hyperv
