// Uploads over a real socket: as the client makes them, and as streams that go
// wrong.

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/blob/blob_store.h"
#include "core/host/host.h"
#include "grpc/blobs/blob_service.h"
#include "grpc/convert/status.h"
#include "grpc/server/services_fixture.h"
#include "vmbfs/v1/blob.grpc.pb.h"

namespace vmbfs::rpc {
namespace {

using ::grpc::ClientContext;
using std::chrono::milliseconds;

using UploadsTest = ServicesTest;

TEST_F(UploadsTest, UploadAboveTheMessageLimitArrivesWhole) {
  std::string content(6'000'001, 'x');
  content.back() = 'y';
  v1::UploadBlobRequest::Options options;
  options.set_size_bytes(static_cast<int64_t>(content.size()));
  const std::string sha256 = Sha256Hex(std::as_bytes(std::span(content)));
  options.set_expected_sha256(sha256);
  const auto blob = Upload(content, options);
  ASSERT_TRUE(blob.ok()) << blob.status();
  EXPECT_EQ(blob->sha256(), sha256);
  EXPECT_EQ(blob->name(), "blobs/" + sha256);
  EXPECT_EQ(blob->size_bytes(), 6'000'001);
  v1::GetBlobRequest get;
  get.set_name(blob->name());
  EXPECT_EQ(client_->GetBlob(get)->size_bytes(), 6'000'001);
}

TEST_F(UploadsTest, RefusedUploadLeavesNothingBehind) {
  v1::UploadBlobRequest::Options options;
  ExpectError(Upload("abc", options), absl::StatusCode::kInvalidArgument, "UPLOAD_SIZE_MISSING");
  options.set_size_bytes(4);
  ExpectError(Upload("abc", options), absl::StatusCode::kInvalidArgument, "UPLOAD_SIZE_MISMATCH");
  options.set_size_bytes(2);
  ExpectError(Upload("abc", options), absl::StatusCode::kInvalidArgument, "UPLOAD_SIZE_MISMATCH");
  options.set_size_bytes(int64_t{1} << 40);
  ExpectError(Upload("abc", options), absl::StatusCode::kResourceExhausted, "BLOB_TOO_LARGE");
  options.set_size_bytes(3);
  options.set_expected_sha256("ABC");
  ExpectError(Upload("abc", options), absl::StatusCode::kInvalidArgument, "DIGEST_INVALID");
  options.set_expected_sha256(std::string(64, '0'));
  ExpectError(Upload("abc", options), absl::StatusCode::kInvalidArgument, "DIGEST_MISMATCH");
  EXPECT_EQ(server_.host().blob_count(), 0u);
  EXPECT_EQ(server_.host().uploads_under_way(), 0);
}

TEST_F(UploadsTest, ChunkAboveTheLimitIsRefused) {
  v1::UploadBlobRequest::Options options;
  options.set_size_bytes(2 << 20);
  const auto blob = client_->UploadBlob(
      options,
      [](std::string& chunk) {
        chunk.assign((1 << 20) + 1, 'x');
        return absl::OkStatus();
      },
      kTestTimeout);
  ExpectError(blob, absl::StatusCode::kInvalidArgument, "UPLOAD_CHUNK_INVALID");
}

TEST_F(UploadsTest, FailingSourceCancelsTheUpload) {
  v1::UploadBlobRequest::Options options;
  options.set_size_bytes(3);
  const auto blob = client_->UploadBlob(
      options, [](std::string&) { return absl::DataLossError("disk"); }, kTestTimeout);
  EXPECT_EQ(blob.status(), absl::DataLossError("disk"));
  EXPECT_EQ(server_.host().blob_count(), 0u);
}

TEST_F(UploadsTest, UnknownBlobIsNotFound) {
  v1::GetBlobRequest get;
  get.set_name("blobs/" + std::string(64, '0'));
  ExpectError(client_->GetBlob(get), absl::StatusCode::kNotFound, "BLOB_NOT_FOUND");
  get.set_name("blobs/0");
  ExpectError(client_->GetBlob(get), absl::StatusCode::kInvalidArgument, "NAME_INVALID");
}

std::shared_ptr<::grpc::Channel> ChannelTo(const std::string& address) {
  return ::grpc::CreateChannel(address, ::grpc::InsecureChannelCredentials());
}

class UploadStreamTest : public testing::Test {
 protected:
  UploadStreamTest() : stub_(v1::BlobService::NewStub(ChannelTo(server_.address()))) {}

  static v1::UploadBlobRequest Options(int64_t size_bytes) {
    v1::UploadBlobRequest message;
    message.mutable_options()->set_size_bytes(size_bytes);
    return message;
  }
  static v1::UploadBlobRequest Chunk(const std::string& bytes) {
    v1::UploadBlobRequest message;
    message.set_chunk(bytes);
    return message;
  }

  // Sends the messages and returns how the call ended.
  ::grpc::Status Send(const std::vector<v1::UploadBlobRequest>& messages) {
    ClientContext context;
    v1::Blob blob;
    const auto writer = stub_->UploadBlob(&context, &blob);
    for (const v1::UploadBlobRequest& message : messages) {
      if (!writer->Write(message)) break;
    }
    writer->WritesDone();
    return writer->Finish();
  }

  TestServer server_;
  std::unique_ptr<v1::BlobService::Stub> stub_;
};

TEST_F(UploadStreamTest, MessagesOutOfOrderAreRefused) {
  for (const auto& messages :
       std::vector<std::vector<v1::UploadBlobRequest>>{{},
                                                       {v1::UploadBlobRequest()},
                                                       {Chunk("abc"), Options(3)},
                                                       {Options(3), Options(3), Chunk("abc")},
                                                       {Options(3), Chunk(""), Chunk("abc")}}) {
    EXPECT_EQ(Send(messages).error_code(), ::grpc::StatusCode::INVALID_ARGUMENT);
  }
  EXPECT_EQ(server_.host().blob_count(), 0u);
  EXPECT_TRUE(Send({Options(3), Chunk("a"), Chunk("bc")}).ok());
  EXPECT_TRUE(Send({Options(0)}).ok());
  EXPECT_EQ(server_.host().blob_count(), 2u);
}

TEST_F(UploadStreamTest, CancelRemovesWhatHadCome) {
  ClientContext context;
  v1::Blob blob;
  const auto writer = stub_->UploadBlob(&context, &blob);
  ASSERT_TRUE(writer->Write(Options(6)));
  ASSERT_TRUE(writer->Write(Chunk("abc")));
  ASSERT_TRUE(Eventually([&] { return server_.host().uploads_under_way() == 1; }));
  context.TryCancel();
  EXPECT_EQ(writer->Finish().error_code(), ::grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return server_.host().uploads_under_way() == 0; }));
  EXPECT_EQ(server_.host().blob_count(), 0u);
}

TEST_F(UploadStreamTest, UploadsBeyondTheBoundAreRefusedAndTakenAgainLater) {
  std::vector<std::unique_ptr<ClientContext>> contexts;
  std::vector<std::unique_ptr<::grpc::ClientWriter<v1::UploadBlobRequest>>> writers;
  v1::Blob blob;
  for (int i = 0; i < kUploadsMax; ++i) {
    contexts.push_back(std::make_unique<ClientContext>());
    writers.push_back(stub_->UploadBlob(contexts.back().get(), &blob));
    ASSERT_TRUE(writers.back()->Write(Options(3)));
  }
  ASSERT_TRUE(Eventually([&] { return server_.host().uploads_under_way() == kUploadsMax; }));
  const ::grpc::Status refused = Send({Options(3), Chunk("abc")});
  EXPECT_EQ(refused.error_code(), ::grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(FromGrpcStatus(refused)), "SERVER_BUSY");
  for (const auto& context : contexts) context->TryCancel();
  for (const auto& writer : writers) writer->Finish();
  EXPECT_TRUE(Eventually([&] { return Send({Options(3), Chunk("abc")}).ok(); }));
}

TEST(Ending, OpenUploadIsCancelledAfterTheGivenTime) {
  ServerOptions options;
  options.shutdown_max = milliseconds(100);
  TestServer server(options);
  const auto stub = v1::BlobService::NewStub(ChannelTo(server.address()));
  ClientContext context;
  v1::Blob blob;
  const auto writer = stub->UploadBlob(&context, &blob);
  v1::UploadBlobRequest first;
  first.mutable_options()->set_size_bytes(3);
  ASSERT_TRUE(writer->Write(first));
  ASSERT_TRUE(Eventually([&] { return server.host().uploads_under_way() == 1; }));
  const auto begin = std::chrono::steady_clock::now();
  server.Stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(4));
  EXPECT_EQ(server.host().uploads_under_way(), 0);
  EXPECT_FALSE(writer->Finish().ok());
  EXPECT_FALSE(std::filesystem::exists(server.socket_path()));
}

}  // namespace
}  // namespace vmbfs::rpc
