// What the server does at the level of gRPC: details of errors, health,
// reflection and limits.

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "grpc/server/test_server.h"
#include "vmbfs/v1/attachment.grpc.pb.h"
#include "vmbfs/v1/imc.grpc.pb.h"
#include "vmbfs/v1/vm.grpc.pb.h"

namespace vmbfs::rpc {
namespace {

using ::grpc::ClientContext;
using ::grpc::StatusCode;
using ::grpc::health::v1::Health;
using ::grpc::health::v1::HealthCheckRequest;
using ::grpc::health::v1::HealthCheckResponse;
using ::grpc::reflection::v1alpha::ServerReflection;
using ::grpc::reflection::v1alpha::ServerReflectionRequest;
using ::grpc::reflection::v1alpha::ServerReflectionResponse;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::UnorderedElementsAre;

std::shared_ptr<::grpc::Channel> ChannelTo(const TestServer& server,
                                           ::grpc::ChannelArguments arguments = {}) {
  // A connection of its own for each channel.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return ::grpc::CreateCustomChannel(server.address(), ::grpc::InsecureChannelCredentials(),
                                     arguments);
}

::grpc::Status GetVm(v1::VmService::Stub& stub, const std::string& name) {
  ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + seconds(20));
  v1::GetVmRequest request;
  request.set_name(name);
  v1::Vm response;
  return stub.GetVm(&context, request, &response);
}

template <typename T>
T DetailOf(const ::grpc::Status& status) {
  google::rpc::Status wire;
  EXPECT_TRUE(wire.ParseFromString(status.error_details()));
  EXPECT_EQ(wire.code(), status.error_code());
  T detail;
  for (const auto& any : wire.details()) {
    if (any.UnpackTo(&detail)) return detail;
  }
  ADD_FAILURE() << "no " << T::descriptor()->full_name() << " in " << wire.DebugString();
  return detail;
}

TEST(Errors, ReachTheClientWithTheirDetails) {
  TestServer server;
  const auto stub = v1::VmService::NewStub(ChannelTo(server));
  const ::grpc::Status missing = GetVm(*stub, "vms/web");
  EXPECT_EQ(missing.error_code(), StatusCode::NOT_FOUND);
  const auto info = DetailOf<google::rpc::ErrorInfo>(missing);
  EXPECT_EQ(info.reason(), "VM_NOT_FOUND");
  EXPECT_EQ(info.domain(), "vmbfs");
  EXPECT_EQ(info.metadata().at("resource"), "vms/web");
  const auto bad = DetailOf<google::rpc::BadRequest>(GetVm(*stub, "web"));
  EXPECT_EQ(bad.field_violations(0).field(), "name");
}

TEST(Errors, OfTwoHivesTheOneThatIsMissingIsNamed) {
  TestServer server;
  const auto stub = v1::ImcService::NewStub(ChannelTo(server));
  v1::DiffImcRequest request;
  request.mutable_first()->set_blob("blobs/" + std::string(64, '0'));
  request.mutable_second()->set_blob("blobs/" + std::string(64, '1'));
  ClientContext context;
  v1::DiffImcResponse response;
  const auto info = DetailOf<google::rpc::ErrorInfo>(stub->DiffImc(&context, request, &response));
  EXPECT_EQ(info.metadata().at("resource"), request.first().blob());
}

TEST(Health, ChecksTheServerItsServicesAndNoOthers) {
  TestServer server;
  const auto stub = Health::NewStub(ChannelTo(server));
  const auto check = [&stub](const std::string& service, HealthCheckResponse& response) {
    ClientContext context;
    HealthCheckRequest request;
    request.set_service(service);
    return stub->Check(&context, request, &response).error_code();
  };
  for (const char* service :
       {"", "vmbfs.v1.VmService", "vmbfs.v1.AttachmentService", "vmbfs.v1.BlobService",
        "vmbfs.v1.ImcService", "vmbfs.v1.InspectService"}) {
    HealthCheckResponse response;
    EXPECT_EQ(check(service, response), StatusCode::OK) << service;
    EXPECT_EQ(response.status(), HealthCheckResponse::SERVING) << service;
  }
  HealthCheckResponse response;
  EXPECT_EQ(check("vmbfs.v1.Nothing", response), StatusCode::NOT_FOUND);
}

TEST(Health, WatchTellsOfTheEndAndDoesNotHoldItUp) {
  TestServer server;
  const auto stub = Health::NewStub(ChannelTo(server));
  ClientContext context;
  const auto reader = stub->Watch(&context, HealthCheckRequest());
  ClientContext unknown_context;
  HealthCheckRequest unknown;
  unknown.set_service("nothing");
  const auto unknown_reader = stub->Watch(&unknown_context, unknown);
  HealthCheckResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  ASSERT_TRUE(unknown_reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVICE_UNKNOWN);

  const auto begin = std::chrono::steady_clock::now();
  std::thread stopping([&server] { server.Stop(); });
  EXPECT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::UNAVAILABLE);
  EXPECT_FALSE(unknown_reader->Read(&response));
  stopping.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(4));
}

TEST(Health, CancelledWatchesAreForgotten) {
  TestServer server;
  const auto stub = Health::NewStub(ChannelTo(server));
  // More than the server takes at a time: each must be gone before the last.
  for (int i = 0; i < 600; ++i) {
    ClientContext context;
    const auto reader = stub->Watch(&context, HealthCheckRequest());
    HealthCheckResponse response;
    ASSERT_TRUE(Eventually([&] { return reader->Read(&response); })) << i;
    context.TryCancel();
    reader->Finish();
  }
}

class ReflectionTest : public testing::Test {
 protected:
  ServerReflectionResponse Ask(const ServerReflectionRequest& request) {
    const auto stub = ServerReflection::NewStub(ChannelTo(server_));
    ClientContext context;
    const auto stream = stub->ServerReflectionInfo(&context);
    ServerReflectionResponse response;
    EXPECT_TRUE(stream->Write(request) && stream->Read(&response));
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
    return response;
  }

  TestServer server_;
};

TEST_F(ReflectionTest, ListsEveryService) {
  ServerReflectionRequest request;
  request.set_list_services("");
  const ServerReflectionResponse response = Ask(request);
  std::vector<std::string> names;
  for (const auto& service : response.list_services_response().service()) {
    names.push_back(service.name());
  }
  EXPECT_THAT(names, UnorderedElementsAre(
                         "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
                         "vmbfs.v1.AttachmentService", "vmbfs.v1.BlobService",
                         "vmbfs.v1.ImcService", "vmbfs.v1.InspectService", "vmbfs.v1.VmService"));
}

TEST_F(ReflectionTest, DescribesEveryServiceAndWhatItNeeds) {
  for (const char* name : {"grpc.health.v1.Health", "vmbfs.v1.AttachmentService",
                           "vmbfs.v1.BlobService", "vmbfs.v1.ImcService", "vmbfs.v1.InspectService",
                           "vmbfs.v1.VmService", "google.api.ResourceDescriptor"}) {
    ServerReflectionRequest request;
    request.set_file_containing_symbol(name);
    const ServerReflectionResponse response = Ask(request);
    ASSERT_TRUE(response.has_file_descriptor_response()) << name << response.DebugString();
    google::protobuf::FileDescriptorProto file;
    EXPECT_TRUE(file.ParseFromString(response.file_descriptor_response().file_descriptor_proto(0)));
  }
}

TEST(Limits, BusyServerRefusesAndRecovers) {
  ServerOptions options;
  options.threads = 1;
  options.calls_max = 2;
  TestServer server(options);
  server.host().HoldGetVm(true);
  const auto stub = v1::VmService::NewStub(ChannelTo(server));
  std::vector<std::thread> callers;
  std::atomic<int> answered{0};
  std::atomic<int> busy{0};
  for (int i = 0; i < 5; ++i) {
    callers.emplace_back([&] {
      const ::grpc::Status status = GetVm(*stub, "vms/web");
      if (status.error_code() == StatusCode::RESOURCE_EXHAUSTED) {
        EXPECT_EQ(DetailOf<google::rpc::ErrorInfo>(status).reason(), "SERVER_BUSY");
        EXPECT_GT(DetailOf<google::rpc::RetryInfo>(status).retry_delay().seconds(), 0);
        ++busy;
      } else {
        ++answered;
      }
    });
  }
  EXPECT_TRUE(Eventually([&] { return busy == 3; }));
  server.host().HoldGetVm(false);
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(answered, 2);
  EXPECT_EQ(GetVm(*stub, "vms/web").error_code(), StatusCode::NOT_FOUND);
}

// The first thing that an attach asks for is its VM.
TEST(Limits, HiveThatTakesLongToCheckHoldsUpNoOtherCall) {
  ServerOptions options;
  options.threads = 1;
  TestServer server(options);
  server.host().HoldGetVm(true);
  const auto stub = v1::AttachmentService::NewStub(ChannelTo(server));
  std::thread attaching([&] {
    ClientContext context;
    v1::CreateAttachmentRequest request;
    request.set_parent("vms/web");
    request.set_attachment_id("imc");
    request.mutable_attachment()->mutable_file()->set_blob("blobs/" + std::string(64, '0'));
    v1::Attachment response;
    EXPECT_EQ(stub->CreateAttachment(&context, request, &response).error_code(),
              StatusCode::NOT_FOUND);
  });
  EXPECT_TRUE(Eventually([&] { return server.host().get_vm_waiting() == 1; }));
  ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  v1::ListVmsResponse vms;
  const auto vm_stub = v1::VmService::NewStub(ChannelTo(server));
  EXPECT_TRUE(vm_stub->ListVms(&context, v1::ListVmsRequest(), &vms).ok());
  server.host().HoldGetVm(false);
  attaching.join();
}

TEST(Limits, CallWhoseDeadlinePassedWhileItWaitedHasNoEffect) {
  ServerOptions options;
  options.threads = 1;
  TestServer server(options);
  server.host().HoldGetVm(true);
  const auto stub = v1::VmService::NewStub(ChannelTo(server));
  std::thread holder([&] { GetVm(*stub, "vms/web"); });
  ASSERT_TRUE(Eventually([&] { return server.host().get_vm_waiting() == 1; }));
  ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + milliseconds(50));
  v1::CreateVmRequest request;
  request.set_vm_id("late");
  v1::Vm response;
  EXPECT_EQ(stub->CreateVm(&context, request, &response).error_code(),
            StatusCode::DEADLINE_EXCEEDED);
  // The server's own timer for the call is as long as the client's.
  std::this_thread::sleep_for(milliseconds(200));
  server.host().HoldGetVm(false);
  holder.join();
  EXPECT_EQ(GetVm(*stub, "vms/late").error_code(), StatusCode::NOT_FOUND);
}

TEST(Limits, MessageAboveTheLimitIsRefused) {
  TestServer server;
  const auto stub = v1::VmService::NewStub(ChannelTo(server));
  const ::grpc::Status status = GetVm(*stub, std::string(kReceiveBytesMax + 1, 'x'));
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(GetVm(*stub, std::string(kReceiveBytesMax / 2, 'x')).error_code(),
            StatusCode::INVALID_ARGUMENT);
}

// Whether the connection of a client that pings every second (gRPC allows it no
// more), without a call, is still there after some pings.
bool OutlivesPings(milliseconds ping_interval_min) {
  ServerOptions options;
  options.client_ping_interval_min = ping_interval_min;
  TestServer server(options);
  ::grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 1000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  const auto channel = ChannelTo(server, arguments);
  const auto stub = v1::VmService::NewStub(channel);
  EXPECT_EQ(GetVm(*stub, "vms/web").error_code(), StatusCode::NOT_FOUND);
  return !channel->WaitForStateChange(GRPC_CHANNEL_READY,
                                      std::chrono::system_clock::now() + seconds(6));
}

TEST(Limits, ClientIsSentAwayForPingsBelowTheIntervalOnly) {
  EXPECT_TRUE(OutlivesPings(milliseconds(500)));
  EXPECT_FALSE(OutlivesPings(milliseconds(60'000)));
  EXPECT_LE(ServerOptions().client_ping_interval_min, seconds(10));
}

}  // namespace
}  // namespace vmbfs::rpc
