#include "tests/real_guest/vmm/kvm_machine.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "tests/real_guest/vmm/kvm_api.h"

namespace vmbfs::test_vmm {
namespace {

TEST(KvmMachineTest, AKvmWithTheHypervPartsIsAble) {
  EXPECT_TRUE(KvmMachine::CheckExtensions([](int) { return 1; }).ok());
}

TEST(KvmMachineTest, EachMissingPartIsNamed) {
  const std::pair<int, const char*> parts[] = {{KVM_CAP_HYPERV_SYNIC2, "HYPERV_SYNIC2"},
                                               {KVM_CAP_HYPERV_EVENTFD, "HYPERV_EVENTFD"},
                                               {KVM_CAP_SYS_HYPERV_CPUID, "SYS_HYPERV_CPUID"}};
  for (const auto& part : parts) {
    const absl::Status able = KvmMachine::CheckExtensions(
        [&](int capability) { return capability == part.first ? 0 : 1; });
    EXPECT_EQ(able.code(), absl::StatusCode::kUnimplemented);
    EXPECT_NE(std::string(able.message()).find(part.second), std::string::npos) << able.message();
  }
}

TEST(KvmMachineTest, ARefusedQuestionIsAMissingPart) {
  EXPECT_FALSE(KvmMachine::CheckExtensions([](int) { return -1; }).ok());
}

}  // namespace
}  // namespace vmbfs::test_vmm
