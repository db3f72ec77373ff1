#include <gmock/gmock.h>
#include <google/protobuf/util/time_util.h>
#include <grpcpp/support/status.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/status/status.h"
#include "core/host/host.h"
#include "core/inspect/node.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/convert/names.h"
#include "grpc/convert/status.h"
#include "grpc/convert/utf8.h"
#include "grpc/convert/views.h"

namespace vmbfs::rpc {
namespace {

using absl::StatusCode;
using testing::HasSubstr;

const std::string kDigest(64, 'a');

// The one detail of type T; fails the test when there is none.
template <typename T>
T DetailOf(const ::grpc::Status& status) {
  google::rpc::Status wire;
  EXPECT_TRUE(wire.ParseFromString(status.error_details()));
  T detail;
  for (const auto& any : wire.details()) {
    if (any.UnpackTo(&detail)) return detail;
  }
  ADD_FAILURE() << "no " << T::descriptor()->full_name() << " in " << wire.DebugString();
  return detail;
}

TEST(Names, FormatAndParseAreInverse) {
  EXPECT_EQ(*ParseVmName(VmName("web-7"), "name"), "web-7");
  const auto id = ParseAttachmentName(AttachmentName("web-7", DeviceKind::kBoot), "name");
  ASSERT_TRUE(id.ok());
  EXPECT_EQ(id->vm, "web-7");
  EXPECT_EQ(id->device, DeviceKind::kBoot);
  EXPECT_EQ(*ParseBlobName("blobs/" + kDigest, "name"), kDigest);
}

TEST(Names, OtherFormsAreRefusedWithTheField) {
  for (const char* name : {"", "vms", "vms/", "vm/web", "vms/a/b", "web", "/vms/a"}) {
    const auto parsed = ParseVmName(name, "parent");
    EXPECT_TRUE(absl::IsInvalidArgument(parsed.status())) << name;
    EXPECT_EQ(DetailOf<google::rpc::BadRequest>(ToGrpcStatus(parsed.status(), ""))
                  .field_violations(0)
                  .field(),
              "parent");
  }
  for (const char* name :
       {"", "vms/a", "vms/a/attachments", "vms/a/attachments/", "vms/a/attachments/disk",
        "vms//attachments/imc", "vms/a/b/attachments/imc", "vms/a/attachments/imc/x"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseAttachmentName(name, "name").status())) << name;
  }
  for (const std::string& name : {std::string("blobs/abc"), kDigest, "blobs/" + kDigest + "a",
                                  "blobs/" + std::string(64, 'A')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseBlobName(name, "name").status())) << name;
  }
}

TEST(Names, IdsOfVmsFollowTheRule) {
  for (const std::string& id :
       {std::string("a"), std::string("Web_7.test-x"), std::string(63, 'x'), std::string("7")}) {
    EXPECT_TRUE(CheckVmId(id, "vm_id").ok()) << id;
  }
  for (const std::string& id : {std::string(), std::string("-a"), std::string(".."),
                                std::string("a/b"), std::string(64, 'x'), std::string("ä")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(CheckVmId(id, "vm_id"))) << id;
  }
}

TEST(Status, EveryErrorCarriesOneErrorInfo) {
  const auto status =
      ToGrpcStatus(HostError(StatusCode::kNotFound, "VM_NOT_FOUND", "no such VM"), "vms/web-7");
  EXPECT_EQ(status.error_code(), ::grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "no such VM");
  const auto info = DetailOf<google::rpc::ErrorInfo>(status);
  EXPECT_EQ(info.reason(), "VM_NOT_FOUND");
  EXPECT_EQ(info.domain(), "vmbfs");
  EXPECT_EQ(info.metadata().at("resource"), "vms/web-7");
}

TEST(Status, ResourceOfAnErrorIsNamedInPlaceOfTheCalls) {
  const auto status =
      ToGrpcStatus(AboutResource(absl::NotFoundError("no such blob"), "blobs/a"), "imc");
  EXPECT_EQ(DetailOf<google::rpc::ErrorInfo>(status).metadata().at("resource"), "blobs/a");
  EXPECT_TRUE(AboutResource(absl::OkStatus(), "blobs/a").ok());
}

TEST(Status, ErrorWithoutReasonIsNamedByItsCode) {
  const auto status = ToGrpcStatus(absl::InternalError("disk"), "");
  EXPECT_EQ(DetailOf<google::rpc::ErrorInfo>(status).reason(), "INTERNAL");
}

TEST(Status, CodesHaveTheDetailsThatFit) {
  const auto precondition = DetailOf<google::rpc::PreconditionFailure>(
      ToGrpcStatus(HostError(StatusCode::kFailedPrecondition, "CHANNEL_OPEN", "open"), "vms/a"));
  EXPECT_EQ(precondition.violations(0).type(), "CHANNEL_OPEN");
  EXPECT_EQ(precondition.violations(0).subject(), "vms/a");
  const auto quota = DetailOf<google::rpc::QuotaFailure>(
      ToGrpcStatus(absl::ResourceExhaustedError("disk is full"), "blobs"));
  EXPECT_EQ(quota.violations(0).description(), "disk is full");
  const auto retry = DetailOf<google::rpc::RetryInfo>(ToGrpcStatus(BusyError(), ""));
  EXPECT_GT(retry.retry_delay().seconds(), 0);
}

TEST(Status, FieldIsNamedOnceAndOnlyOfInvalidArguments) {
  const absl::Status first = AboutField(FieldError("inner", "X", "wrong"), "outer");
  EXPECT_EQ(DetailOf<google::rpc::BadRequest>(ToGrpcStatus(first, "")).field_violations(0).field(),
            "inner");
  EXPECT_TRUE(AboutField(absl::OkStatus(), "outer").ok());
}

TEST(Status, WayToTheWireAndBackKeepsCodeMessageAndReason) {
  const absl::Status sent = HostError(StatusCode::kAborted, "ETAG_MISMATCH", "changed");
  const absl::Status received = FromGrpcStatus(ToGrpcStatus(sent, "vms/a"));
  EXPECT_EQ(received.code(), sent.code());
  EXPECT_EQ(received.message(), sent.message());
  EXPECT_EQ(ReasonOf(received), "ETAG_MISMATCH");
}

TEST(Status, ForeignStatusHasNoReason) {
  const absl::Status received =
      FromGrpcStatus(::grpc::Status(::grpc::StatusCode::UNAVAILABLE, "gone", "\xff\xff"));
  EXPECT_TRUE(absl::IsUnavailable(received));
  EXPECT_EQ(ReasonOf(received), "");
}

TEST(Status, LongOrBrokenTextIsCutAndEscaped) {
  const auto status = ToGrpcStatus(absl::InternalError(std::string(100'000, 'x') + "\xff"),
                                   std::string(100'000, 'y'));
  EXPECT_LT(status.error_message().size(), 2 * kMessageBytesMax);
  EXPECT_LT(status.error_details().size(), 4 * kMessageBytesMax);
}

TEST(Utf8, ValidTextIsKeptAndInvalidTextIsEscaped) {
  for (const char* text : {"", "plain", "h\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80"}) {
    EXPECT_EQ(ValidUtf8(text, 100), text);
  }
  for (const char* text : {"\x80", "\xc3", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80",
                           "\xf4\x90\x80\x80", "\xff", "ok\xc3("}) {
    const std::string escaped = ValidUtf8(text, 100);
    EXPECT_NE(escaped, text);
    EXPECT_THAT(escaped, HasSubstr("\\"));
  }
}

TEST(Views, AttachmentShowsWantedAndActiveApart) {
  AttachmentView view;
  view.vm = "web-7";
  view.device = DeviceKind::kImc;
  view.wanted = {std::string(64, 'b'), 200, "imc.hiv"};
  view.active = FileContent{kDigest, 100, "imc.hiv"};
  view.open = true;
  view.etag = "7";
  view.create_time_us = 1'700'000'000'123'456;
  const v1::Attachment message = ToProto(view);
  EXPECT_EQ(message.name(), "vms/web-7/attachments/imc");
  EXPECT_EQ(message.file().blob(), "blobs/" + std::string(64, 'b'));
  EXPECT_EQ(message.size_bytes(), 200);
  EXPECT_EQ(message.active().file().blob(), "blobs/" + kDigest);
  EXPECT_EQ(message.active().size_bytes(), 100);
  EXPECT_EQ(google::protobuf::util::TimeUtil::ToString(message.create_time()),
            "2023-11-14T22:13:20.123456Z");

  view.active.reset();
  EXPECT_FALSE(ToProto(view).has_active());
}

TEST(Views, VmWithoutOwnerLeavesTheFieldAbsent) {
  VmView view;
  view.name = "web-7";
  EXPECT_FALSE(ToProto(view).has_owner_uid());
  view.owner_uid = 0;
  EXPECT_TRUE(ToProto(view).has_owner_uid());
}

TEST(Views, UnsealedMemoryIsTold) {
  VmView view;
  EXPECT_FALSE(ToProto(view).allow_unsealed_memory());
  view.allow_unsealed_memory = true;
  EXPECT_TRUE(ToProto(view).allow_unsealed_memory());
}

TEST(Views, MonitoredChannelsAreTold) {
  VmView view;
  EXPECT_FALSE(ToProto(view).monitored());
  view.monitored = true;
  EXPECT_TRUE(ToProto(view).monitored());
}

TEST(Views, NodesKeepTheirTypesAndOrder) {
  inspect::Node root;
  root.name = "vm";
  root.Add("zero", uint64_t{0});
  root.Add("negative", int64_t{-1});
  root.Add("open", false);
  root.Add("fault", std::string("\xff"));
  root.AddFolder("ring").truncated = true;
  const v1::Node node = ToProto(root);
  ASSERT_EQ(node.children_size(), 5);
  EXPECT_EQ(node.value_case(), v1::Node::VALUE_NOT_SET);
  EXPECT_EQ(node.children(0).value_case(), v1::Node::kUintValue);
  EXPECT_EQ(node.children(1).int_value(), -1);
  EXPECT_EQ(node.children(2).value_case(), v1::Node::kBoolValue);
  EXPECT_EQ(node.children(3).string_value(), "\\xff");
  EXPECT_TRUE(node.children(4).truncated());
}

}  // namespace
}  // namespace vmbfs::rpc
