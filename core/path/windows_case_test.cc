#include "core/path/windows_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

namespace vmbfs {
namespace {

int Sign(int value) { return (value > 0) - (value < 0); }

TEST(CompareNamesTest, LetterCaseDoesNotMatter) {
  EXPECT_EQ(CompareNames(u"imc.hiv", u"IMC.HIV"), 0);
  EXPECT_EQ(CompareNames(u"Grüße", u"GRÜßE"), 0);
  EXPECT_EQ(CompareNames(u"ΑΒΓ", u"αβγ"), 0);
  EXPECT_EQ(CompareNames(u"жук", u"ЖУК"), 0);
  EXPECT_EQ(CompareNames(u"", u""), 0);
}

TEST(CompareNamesTest, OtherNamesDifferInTheOrderOfTheirUpperCase) {
  EXPECT_LT(CompareNames(u"a", u"b"), 0);
  EXPECT_GT(CompareNames(u"b", u"A"), 0);
  EXPECT_LT(CompareNames(u"imc.hi", u"imc.hiv"), 0);
  EXPECT_GT(CompareNames(u"imc.hiv", u"IMC.HI"), 0);
  // `_` lies between the upper-case and the lower-case letters.
  EXPECT_GT(CompareNames(u"_", u"z"), 0);
  EXPECT_NE(CompareNames(u"ß", u"ss"), 0);
  for (const auto& [a, b] : {std::pair(u"a", u"B"), std::pair(u"x", u"xy")}) {
    EXPECT_EQ(Sign(CompareNames(a, b)), -Sign(CompareNames(b, a)));
  }
}

TEST(CompareNamesTest, DotlessIAndLongSAreNoFormsOfIAndS) {
  EXPECT_NE(CompareNames(u"imc.hıv", u"imc.hiv"), 0);
  EXPECT_NE(CompareNames(u"ſ", u"s"), 0);
  EXPECT_NE(CompareNames(u"ſ", u"S"), 0);
}

// Windows compares 16-bit units: Deseret letters have case, their halves none.
TEST(CompareNamesTest, SurrogatesAreComparedAsTheyAre) {
  EXPECT_NE(CompareNames(u"\U00010400", u"\U00010428"), 0);
  EXPECT_EQ(CompareNames(u"\U0001F600", u"\U0001F600"), 0);
  EXPECT_LT(CompareNames(u"\U0001F600", u"\uFF21"), 0);
}

// The table that Windows compares with folds 1,163 units of the basic plane into
// others (shared/specs/imc.md, "Case table").
TEST(CompareNamesTest, AsManyUnitsFoldAsInTheTableOfWindows) {
  std::vector<char16_t> units(0x10000);
  std::iota(units.begin(), units.end(), char16_t{0});
  const auto less = [](char16_t a, char16_t b) { return CompareNames({&a, 1}, {&b, 1}) < 0; };
  std::sort(units.begin(), units.end(), less);
  int folded = 0;
  for (size_t i = 1; i < units.size(); ++i) folded += less(units[i - 1], units[i]) ? 0 : 1;
  EXPECT_EQ(folded, 1163);
}

}  // namespace
}  // namespace vmbfs
