#include "core/inspect/node.h"

#include <gtest/gtest.h>

#include "absl/status/status.h"

namespace vmbfs::inspect {
namespace {

Node Tree() {
  Node root;
  root.AddFolder("daemon").Add("pid", int64_t{17});
  Node& vm = root.AddFolder("vms").AddFolder("web-7");
  vm.AddFolder("link").Add("connected", true);
  vm.AddFolder("bus").Add("version", std::string("6.0"));
  return root;
}

TEST(Node, ChildrenKeepTheirOrder) {
  const Node root = Tree();
  ASSERT_EQ(root.children.size(), 2u);
  EXPECT_EQ(root.children[0].name, "daemon");
  EXPECT_EQ(root.children[1].children[0].children[1].name, "bus");
}

TEST(Select, EmptyPathIsTheRoot) {
  const auto node = Select(Tree(), "", 9);
  ASSERT_TRUE(node.ok());
  EXPECT_EQ(std::get<int64_t>(node->children[0].children[0].value), 17);
  EXPECT_FALSE(node->truncated);
}

TEST(Select, DepthZeroShowsTheNodeAloneAndSaysSo) {
  const auto node = Select(Tree(), "vms", 0);
  ASSERT_TRUE(node.ok());
  EXPECT_EQ(node->name, "vms");
  EXPECT_TRUE(node->children.empty());
  EXPECT_TRUE(node->truncated);
}

TEST(Select, DepthCutsBelowAndMarksWhereItCut) {
  const auto node = Select(Tree(), "vms", 1);
  ASSERT_TRUE(node.ok());
  EXPECT_FALSE(node->truncated);
  ASSERT_EQ(node->children.size(), 1u);
  EXPECT_TRUE(node->children[0].truncated);
  EXPECT_TRUE(node->children[0].children.empty());
}

TEST(Select, LeafAtDepthZeroIsNotTruncated) {
  const auto node = Select(Tree(), "/vms/web-7/link/connected", 0);
  ASSERT_TRUE(node.ok());
  EXPECT_TRUE(std::get<bool>(node->value));
  EXPECT_FALSE(node->truncated);
}

TEST(Select, MarkOfTheBuilderIsKept) {
  Node root;
  root.AddFolder("vms").truncated = true;
  EXPECT_TRUE(Select(root, "", 5)->children[0].truncated);
}

TEST(Select, UnknownPathNamesTheLongestPartThatExists) {
  const auto node = Select(Tree(), "vms/web-7/disk/0", 1);
  EXPECT_EQ(node.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(node.status().message(),
            "nothing is at this path below \"vms/web-7\"; show that with depth 1 for what is "
            "there");
}

}  // namespace
}  // namespace vmbfs::inspect
