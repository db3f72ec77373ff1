#include "core/hive/registry_tree.h"

#include <gtest/gtest.h>

#include "absl/status/status.h"

namespace vmbfs::hive {
namespace {

constexpr auto kRoot = RegistryTree::kRoot;

TEST(RegistryTreeTest, ASecondKeyOrValueOfANameInAnyCaseIsRefused) {
  RegistryTree tree;
  ASSERT_TRUE(tree.AddKey(kRoot, u"Größe").ok());
  EXPECT_TRUE(absl::IsAlreadyExists(tree.AddKey(kRoot, u"GRÖßE").status()));
  ASSERT_TRUE(tree.AddValue(kRoot, {.name = u"Start", .type = ValueType::kDword, .data = {}}).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(
      tree.AddValue(kRoot, {.name = u"START", .type = ValueType::kDword, .data = {}})));
  ASSERT_TRUE(tree.AddValue(kRoot, {.name = u"", .type = ValueType::kNone, .data = {}}).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(
      tree.AddValue(kRoot, {.name = u"", .type = ValueType::kNone, .data = {}})));
}

TEST(RegistryTreeTest, AFoundKeyIsNotAddedAgain) {
  RegistryTree tree;
  const auto first = tree.FindOrAddKey(kRoot, u"SYSTEM");
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(tree.FindOrAddKey(kRoot, u"system").value(), *first);
  EXPECT_EQ(tree.FindKey(kRoot, u"System"), *first);
  EXPECT_EQ(tree.FindKey(*first, u"System"), std::nullopt);
  EXPECT_EQ(tree.key_count(), 2u);
}

TEST(RegistryTreeTest, NamesThatNoHiveCanHoldAreRefused) {
  RegistryTree tree;
  EXPECT_TRUE(absl::IsInvalidArgument(tree.AddKey(kRoot, u"").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(tree.AddKey(kRoot, u"a\\b").status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(tree.AddKey(kRoot, std::u16string_view(u"a\0b", 3)).status()));
  EXPECT_TRUE(tree.AddKey(kRoot, std::u16string(kKeyNameUnitsMax, u'k')).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(
      tree.AddKey(kRoot, std::u16string(kKeyNameUnitsMax + 1, u'k')).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(tree.AddValue(
      kRoot, {.name = std::u16string(kValueNameUnitsMax + 1, u'v'), .type = {}, .data = {}})));
}

TEST(RegistryTreeTest, APathIsWrittenFromTheRoot) {
  RegistryTree tree;
  const auto system = tree.AddKey(kRoot, u"SYSTEM").value();
  const auto setup = tree.AddKey(system, u"Setup").value();
  EXPECT_EQ(tree.PathText(setup), "SYSTEM\\Setup");
  EXPECT_EQ(tree.PathText(kRoot), "");
}

}  // namespace
}  // namespace vmbfs::hive
