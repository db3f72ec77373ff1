// A client of a test server, and what tests do with it again and again.

#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/host/host.h"
#include "grpc/client/client.h"
#include "grpc/server/test_server.h"

namespace vmbfs::rpc {

inline constexpr std::chrono::seconds kTestTimeout{20};

class ServicesTest : public testing::Test {
 protected:
  ServicesTest() : client_(*Client::Make(server_.address(), kTestTimeout)) {}

  absl::StatusOr<v1::Vm> CreateVm(const std::string& id) {
    v1::CreateVmRequest request;
    request.set_vm_id(id);
    return client_->CreateVm(request);
  }

  // In chunks of 100,000 bytes.
  absl::StatusOr<v1::Blob> Upload(const std::string& content,
                                  const v1::UploadBlobRequest::Options& options) {
    size_t offset = 0;
    return client_->UploadBlob(
        options,
        [&](std::string& chunk) {
          chunk = content.substr(offset, 100'000);
          offset += chunk.size();
          return absl::OkStatus();
        },
        kTestTimeout);
  }

  // The name of the uploaded blob.
  std::string Blob(const std::string& content) {
    v1::UploadBlobRequest::Options options;
    options.set_size_bytes(static_cast<int64_t>(content.size()));
    const auto blob = Upload(content, options);
    EXPECT_TRUE(blob.ok()) << blob.status();
    return blob.ok() ? blob->name() : "";
  }

  absl::StatusOr<v1::Attachment> Attach(const std::string& device, const std::string& blob,
                                        bool validate_only = false) {
    v1::CreateAttachmentRequest request;
    request.set_parent("vms/web");
    request.set_attachment_id(device);
    request.mutable_attachment()->mutable_file()->set_blob(blob);
    if (device == "boot") request.mutable_attachment()->mutable_file()->set_file_name("kernel");
    request.set_validate_only(validate_only);
    return client_->CreateAttachment(request);
  }

  absl::StatusOr<v1::Attachment> Swap(const std::string& device, const v1::FileSource& file,
                                      const std::vector<std::string>& mask = {},
                                      const std::string& etag = "", bool validate_only = false) {
    v1::UpdateAttachmentRequest request;
    request.mutable_attachment()->set_name("vms/web/attachments/" + device);
    request.mutable_attachment()->set_etag(etag);
    *request.mutable_attachment()->mutable_file() = file;
    for (const std::string& path : mask) request.mutable_update_mask()->add_paths(path);
    request.set_validate_only(validate_only);
    return client_->UpdateAttachment(request);
  }

  absl::Status Detach(bool force, const std::string& etag = "") {
    v1::DeleteAttachmentRequest request;
    request.set_name("vms/web/attachments/imc");
    request.set_force(force);
    request.set_etag(etag);
    return client_->DeleteAttachment(request);
  }

  TestServer server_;
  std::unique_ptr<Client> client_;
};

template <typename Result>
void ExpectError(const Result& result, absl::StatusCode code, const std::string& reason) {
  absl::Status status;
  if constexpr (std::is_same_v<Result, absl::Status>) {
    status = result;
  } else {
    status = result.status();
  }
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_EQ(ReasonOf(status), reason) << status;
}

}  // namespace vmbfs::rpc
