#include "core/host/inspect_tree.h"

#include <gtest/gtest.h>

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/inspect/node.h"
#include "core/vm/data_plane.h"
#include "core/vm/vm.h"
#include "core/vm/vm_registry.h"

namespace vmbfs {
namespace {

using std::chrono::milliseconds;

// Two VMs on a thread each; one thread does not answer until the test ends.
class InspectTreeTest : public testing::Test {
 protected:
  InspectTreeTest() {
    AddVm("stuck");
    AddVm("well");
    // All threads have one seat: the first one is the thread of the first VM.
    const DataPlane::Seat seat = plane_.TakeSeat();
    boost::asio::post(seat.executor(),
                      [released = release_.get_future().share()] { released.wait(); });
  }

  ~InspectTreeTest() override {
    release_.set_value();
    for (const std::string& name : registry_.Names()) registry_.Erase(name);
    plane_.Stop();
  }

  void AddVm(const std::string& name) {
    VmEntry entry;
    entry.record.name = name;
    entry.vm = std::make_shared<Vm>(name, plane_, pool_);
    registry_.Put(std::move(entry));
  }

  absl::StatusOr<inspect::Node> Tree(std::string_view path, uint32_t depth) {
    began_ = std::chrono::steady_clock::now();
    return InspectTree(facts_, registry_, path, depth);
  }

  milliseconds Took() const {
    return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - began_);
  }

  // Long enough to tell a call that waited for the stuck VM from one that did not.
  const DaemonFacts facts_{.state_dir = "/var/lib/vmbfs",
                           .uptime_s = 5,
                           .spin_us = 50,
                           .spin_percent = 20,
                           .data_plane = std::vector<DataPlane::ThreadStatus>(2),
                           .vm_answer_max = milliseconds{1000}};
  DataPlane plane_{2};
  boost::asio::thread_pool pool_{1};
  VmRegistry registry_;
  std::promise<void> release_;
  std::chrono::steady_clock::time_point began_;
};

TEST_F(InspectTreeTest, RootWithDepthTwoAsksNoVm) {
  const auto root = Tree("", 2);
  ASSERT_TRUE(root.ok());
  EXPECT_LT(Took(), milliseconds{900});
  ASSERT_EQ(root->children.size(), 2u);
  EXPECT_EQ(root->children[0].name, "daemon");
  EXPECT_EQ(root->children[0].children.size(), 11u);
  const inspect::Node& vms = root->children[1];
  EXPECT_EQ(vms.name, "vms");
  ASSERT_EQ(vms.children.size(), 2u);
  EXPECT_EQ(vms.children[0].name, "stuck");
  EXPECT_TRUE(vms.children[0].truncated);
}

TEST_F(InspectTreeTest, DepthThatEndsAboveTheVmsSaysThatThereIsMore) {
  EXPECT_TRUE(Tree("", 0)->truncated);
  EXPECT_TRUE(Tree("", 1)->children[1].truncated);
  EXPECT_TRUE(Tree("vms", 0)->truncated);
  EXPECT_TRUE(Tree("vms/stuck", 0)->truncated);
  EXPECT_LT(Took(), milliseconds{900});
}

TEST_F(InspectTreeTest, OneVmIsShownWithoutAskingOthers) {
  const auto vm = Tree("vms/well", 3);
  ASSERT_TRUE(vm.ok()) << vm.status();
  EXPECT_LT(Took(), milliseconds{900});
  ASSERT_EQ(vm->children.size(), 5u);
  EXPECT_EQ(vm->children[0].name, "link");
  EXPECT_EQ(vm->children[1].name, "bus");
  EXPECT_EQ(vm->children[2].name, "channels");
  EXPECT_EQ(vm->children[3].name, "devices");
  EXPECT_EQ(vm->children[4].name, "backings");
}

TEST_F(InspectTreeTest, StuckVmShowsAnErrorAndHoldsUpNoOther) {
  const auto vms = Tree("vms", 2);
  ASSERT_TRUE(vms.ok());
  EXPECT_GE(Took(), milliseconds{1000});
  ASSERT_EQ(vms->children.size(), 2u);
  ASSERT_EQ(vms->children[0].children.size(), 1u);
  EXPECT_EQ(vms->children[0].children[0].name, "error");
  EXPECT_EQ(std::get<std::string>(vms->children[0].children[0].value), "no answer within 1000 ms");
  EXPECT_EQ(vms->children[1].children.size(), 5u);
}

TEST_F(InspectTreeTest, DaemonIsShownWithoutAskingVms) {
  EXPECT_EQ(std::get<uint64_t>(Tree("daemon/uptime_s", 9)->value), 5u);
  EXPECT_LT(Took(), milliseconds{900});
}

TEST_F(InspectTreeTest, UnknownPathsAreNotFound) {
  for (const char* path : {"disk", "vms/none", "vms/none/link", "daemon/none"}) {
    EXPECT_EQ(Tree(path, 9).status().code(), absl::StatusCode::kNotFound) << path;
  }
}

}  // namespace
}  // namespace vmbfs
