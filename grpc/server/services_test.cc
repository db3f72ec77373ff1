// VMs, inspection and the client itself, over a real socket.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/host/host.h"
#include "grpc/client/client.h"
#include "grpc/server/services_fixture.h"

namespace vmbfs::rpc {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

TEST_F(ServicesTest, CreatedVmCanBeGotAndDeleted) {
  v1::CreateVmRequest request;
  request.set_vm_id("web");
  request.mutable_vm()->set_owner_uid(1000);
  const auto created = client_->CreateVm(request);
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->name(), "vms/web");
  EXPECT_EQ(created->owner_uid(), 1000u);
  EXPECT_FALSE(created->allow_unsealed_memory());
  EXPECT_FALSE(created->monitored());
  EXPECT_FALSE(created->etag().empty());

  v1::GetVmRequest get;
  get.set_name("vms/web");
  EXPECT_EQ(client_->GetVm(get)->link_path(), created->link_path());

  v1::DeleteVmRequest remove;
  remove.set_name("vms/web");
  remove.set_etag("another");
  ExpectError(client_->DeleteVm(remove), StatusCode::kAborted, "ETAG_MISMATCH");
  remove.set_etag(created->etag());
  EXPECT_TRUE(client_->DeleteVm(remove).ok());
  ExpectError(client_->GetVm(get), StatusCode::kNotFound, "VM_NOT_FOUND");
}

TEST_F(ServicesTest, VmWithUnsealedMemoryIsCreatedOnRequestAndToldSo) {
  v1::CreateVmRequest request;
  request.set_vm_id("web");
  request.mutable_vm()->set_allow_unsealed_memory(true);
  request.set_validate_only(true);
  EXPECT_TRUE(client_->CreateVm(request)->allow_unsealed_memory());
  request.set_validate_only(false);
  EXPECT_TRUE(client_->CreateVm(request)->allow_unsealed_memory());
  EXPECT_TRUE(server_.host().GetVm("web")->allow_unsealed_memory);
  v1::GetVmRequest get;
  get.set_name("vms/web");
  EXPECT_TRUE(client_->GetVm(get)->allow_unsealed_memory());
}

TEST_F(ServicesTest, MonitoredVmIsCreatedOnRequestAndToldSo) {
  v1::CreateVmRequest request;
  request.set_vm_id("web");
  request.mutable_vm()->set_monitored(true);
  request.set_validate_only(true);
  EXPECT_TRUE(client_->CreateVm(request)->monitored());
  request.set_validate_only(false);
  EXPECT_TRUE(client_->CreateVm(request)->monitored());
  EXPECT_TRUE(server_.host().GetVm("web")->monitored);
  v1::GetVmRequest get;
  get.set_name("vms/web");
  EXPECT_TRUE(client_->GetVm(get)->monitored());
}

TEST_F(ServicesTest, SecondVmOfANameIsRefused) {
  ASSERT_TRUE(CreateVm("web").ok());
  ExpectError(CreateVm("web"), StatusCode::kAlreadyExists, "VM_ALREADY_EXISTS");
  ExpectError(CreateVm("../web"), StatusCode::kInvalidArgument, "VM_NAME_INVALID");
}

TEST_F(ServicesTest, ValidatedVmIsNotCreated) {
  v1::CreateVmRequest request;
  request.set_vm_id("web");
  request.set_validate_only(true);
  EXPECT_EQ(client_->CreateVm(request)->name(), "vms/web");
  EXPECT_TRUE(absl::IsNotFound(server_.host().GetVm("web").status()));
  ASSERT_TRUE(CreateVm("web").ok());
  ExpectError(client_->CreateVm(request), StatusCode::kAlreadyExists, "VM_ALREADY_EXISTS");
  request.set_vm_id("-");
  ExpectError(client_->CreateVm(request), StatusCode::kInvalidArgument, "VM_NAME_INVALID");
}

TEST_F(ServicesTest, PagesHaveEveryVmOnce) {
  for (const char* id : {"e", "b", "a", "d", "c"}) ASSERT_TRUE(CreateVm(id).ok());
  v1::ListVmsRequest request;
  request.set_page_size(2);
  std::vector<std::string> names;
  std::vector<int> sizes;
  do {
    const auto page = client_->ListVms(request);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const v1::Vm& vm : page->vms()) names.push_back(vm.name());
    sizes.push_back(page->vms_size());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  EXPECT_THAT(names, ElementsAre("vms/a", "vms/b", "vms/c", "vms/d", "vms/e"));
  EXPECT_THAT(sizes, ElementsAre(2, 2, 1));
}

TEST_F(ServicesTest, InventedPageTokenAndNegativePageSizeAreRefused) {
  v1::ListVmsRequest request;
  for (const char* token : {"x", "!!", "YWZ0ZXI", "YQ"}) {
    request.set_page_token(token);
    ExpectError(client_->ListVms(request), StatusCode::kInvalidArgument, "PAGE_TOKEN_INVALID");
  }
  request.clear_page_token();
  request.set_page_size(-1);
  ExpectError(client_->ListVms(request), StatusCode::kInvalidArgument, "PAGE_SIZE_INVALID");
}

TEST_F(ServicesTest, InspectShowsAPathToADepth) {
  inspect::Node root;
  root.AddFolder("vms").AddFolder("web").Add("connected", true);
  server_.host().SetTree(root);
  v1::InspectRequest request;
  const auto shallow = client_->Inspect(request);
  ASSERT_TRUE(shallow.ok()) << shallow.status();
  EXPECT_EQ(shallow->node().children(0).name(), "vms");
  EXPECT_TRUE(shallow->node().children(0).truncated());
  request.set_path("vms/web");
  EXPECT_TRUE(client_->Inspect(request)->node().children(0).bool_value());
  request.set_depth(0);
  EXPECT_EQ(client_->Inspect(request)->node().children_size(), 0);
  request.set_path("vms/other");
  EXPECT_TRUE(absl::IsNotFound(client_->Inspect(request).status()));
  for (const int depth : {-1, 33}) {
    request.set_depth(depth);
    ExpectError(client_->Inspect(request), StatusCode::kInvalidArgument, "DEPTH_INVALID");
  }
}

TEST_F(ServicesTest, InspectAnswerAboveTheLimitIsRefusedInWords) {
  inspect::Node root;
  for (int i = 0; i < 2000; ++i) root.Add("leaf", std::string(4000, 'x'));
  server_.host().SetTree(root);
  const auto answer = client_->Inspect({});
  ExpectError(answer, StatusCode::kResourceExhausted, "ANSWER_TOO_LARGE");
  EXPECT_THAT(std::string(answer.status().message()), HasSubstr("less depth"));
}

TEST(Client, AddressesOfOtherFormsAreRefused) {
  for (const char* address : {"", "unix:", "host", "host:", "host:x", ":1", "host:0", "h:65536"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Client::Make(address, kTestTimeout).status())) << address;
  }
  EXPECT_TRUE(Client::Make("127.0.0.1:50051", kTestTimeout).ok());
  EXPECT_TRUE(Client::Make("[::1]:50051", kTestTimeout).ok());
}

TEST(Client, NobodyAtTheAddressIsUnreachable) {
  const auto client = *Client::Make("unix:/does/not/exist.sock", kTestTimeout);
  v1::GetVmRequest request;
  const absl::Status status = client->GetVm(request).status();
  ExpectError(status, StatusCode::kUnavailable, std::string(kUnreachableReason));
  EXPECT_EQ(OutcomeOf(status), Outcome::kUnreachable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/does/not/exist.sock"));
}

TEST_F(ServicesTest, SilentServerTimesOut) {
  server_.host().HoldGetVm(true);
  const auto impatient = *Client::Make(server_.address(), std::chrono::milliseconds(100));
  v1::GetVmRequest request;
  request.set_name("vms/web");
  const absl::Status status = impatient->GetVm(request).status();
  server_.host().HoldGetVm(false);
  ExpectError(status, StatusCode::kDeadlineExceeded, std::string(kTimedOutReason));
  EXPECT_EQ(OutcomeOf(status), Outcome::kUnreachable);
}

}  // namespace
}  // namespace vmbfs::rpc
