// The services over a real socket, as a client sees them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/blob/blob_store.h"
#include "core/host/host.h"
#include "grpc/client/client.h"
#include "grpc/server/test_server.h"

namespace vmbfs::rpc {
namespace {

using absl::StatusCode;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr seconds kTimeout{20};

class ServicesTest : public testing::Test {
 protected:
  ServicesTest() : client_(*Client::Make(server_.address(), kTimeout)) {}

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
        kTimeout);
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
void ExpectError(const Result& result, StatusCode code, const std::string& reason) {
  absl::Status status;
  if constexpr (std::is_same_v<Result, absl::Status>) {
    status = result;
  } else {
    status = result.status();
  }
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_EQ(ReasonOf(status), reason) << status;
}

v1::FileSource Source(const std::string& blob, const std::string& file_name = "") {
  v1::FileSource file;
  file.set_blob(blob);
  file.set_file_name(file_name);
  return file;
}

TEST_F(ServicesTest, CreatedVmCanBeGotAndDeleted) {
  v1::CreateVmRequest request;
  request.set_vm_id("web");
  request.mutable_vm()->set_owner_uid(1000);
  const auto created = client_->CreateVm(request);
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->name(), "vms/web");
  EXPECT_EQ(created->owner_uid(), 1000u);
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

TEST_F(ServicesTest, SecondVmOfANameIsRefused) {
  ASSERT_TRUE(CreateVm("web").ok());
  ExpectError(CreateVm("web"), StatusCode::kAlreadyExists, "VM_EXISTS");
  ExpectError(CreateVm("../web"), StatusCode::kInvalidArgument, "VM_NAME_INVALID");
}

TEST_F(ServicesTest, ValidatedVmIsNotCreated) {
  v1::CreateVmRequest request;
  request.set_vm_id("web");
  request.set_validate_only(true);
  EXPECT_EQ(client_->CreateVm(request)->name(), "vms/web");
  EXPECT_TRUE(absl::IsNotFound(server_.host().GetVm("web").status()));
  ASSERT_TRUE(CreateVm("web").ok());
  ExpectError(client_->CreateVm(request), StatusCode::kAlreadyExists, "VM_EXISTS");
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

TEST_F(ServicesTest, VmWithAnOpenChannelIsDeletedByForceOnly) {
  ASSERT_TRUE(CreateVm("web").ok());
  ASSERT_TRUE(Attach("imc", Blob("hive")).ok());
  server_.host().SetOpen("web", DeviceKind::kImc, true);
  v1::DeleteVmRequest request;
  request.set_name("vms/web");
  ExpectError(client_->DeleteVm(request), StatusCode::kFailedPrecondition, "CHANNEL_OPEN");
  request.set_force(true);
  EXPECT_TRUE(client_->DeleteVm(request).ok());
}

TEST_F(ServicesTest, AttachmentShowsItsContent) {
  ASSERT_TRUE(CreateVm("web").ok());
  const std::string blob = Blob("hive");
  const auto created = Attach("imc", blob);
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->name(), "vms/web/attachments/imc");
  EXPECT_EQ(created->file().blob(), blob);
  EXPECT_EQ(created->file().file_name(), "imc.hiv");
  EXPECT_EQ(created->size_bytes(), 4);
  EXPECT_FALSE(created->has_active());

  v1::ListAttachmentsRequest list;
  list.set_parent("vms/web");
  EXPECT_EQ(client_->ListAttachments(list)->attachments_size(), 1);
  list.set_parent("vms/other");
  ExpectError(client_->ListAttachments(list), StatusCode::kNotFound, "VM_NOT_FOUND");
}

TEST_F(ServicesTest, BadAttachmentsAreRefused) {
  const std::string blob = Blob("hive");
  ExpectError(Attach("imc", blob), StatusCode::kNotFound, "VM_NOT_FOUND");
  ASSERT_TRUE(CreateVm("web").ok());
  ExpectError(Attach("disk", blob), StatusCode::kInvalidArgument, "NAME_INVALID");
  ExpectError(Attach("imc", ""), StatusCode::kInvalidArgument, "NAME_INVALID");
  ExpectError(Attach("imc", "blobs/" + std::string(64, '0')), StatusCode::kNotFound,
              "BLOB_NOT_FOUND");
  ExpectError(Attach("imc", Blob("")), StatusCode::kInvalidArgument, "CONTENT_SIZE_INVALID");
  ASSERT_TRUE(Attach("imc", blob).ok());
  ExpectError(Attach("imc", blob), StatusCode::kAlreadyExists, "ATTACHMENT_EXISTS");

  v1::CreateAttachmentRequest without_source;
  without_source.set_parent("vms/web");
  without_source.set_attachment_id("boot");
  ExpectError(client_->CreateAttachment(without_source), StatusCode::kInvalidArgument,
              "SOURCE_MISSING");
}

TEST_F(ServicesTest, ValidatedAttachmentIsNotMade) {
  const std::string blob = Blob("hive");
  ExpectError(Attach("imc", blob, true), StatusCode::kNotFound, "VM_NOT_FOUND");
  ASSERT_TRUE(CreateVm("web").ok());
  const auto validated = Attach("imc", blob, true);
  ASSERT_TRUE(validated.ok()) << validated.status();
  EXPECT_EQ(validated->size_bytes(), 4);
  EXPECT_TRUE(absl::IsNotFound(server_.host().GetAttachment("web", DeviceKind::kImc).status()));
  ExpectError(Attach("imc", "blobs/" + std::string(64, '0'), true), StatusCode::kNotFound,
              "BLOB_NOT_FOUND");
  ExpectError(Attach("imc", Blob(""), true), StatusCode::kInvalidArgument, "CONTENT_SIZE_INVALID");
  ASSERT_TRUE(Attach("imc", blob).ok());
  ExpectError(Attach("imc", blob, true), StatusCode::kAlreadyExists, "ATTACHMENT_EXISTS");
}

TEST_F(ServicesTest, SwapChangesWhatIsWantedAndNotWhatIsActive) {
  ASSERT_TRUE(CreateVm("web").ok());
  const std::string before = Blob("one");
  const std::string after = Blob("three");
  const auto attached = Attach("imc", before);
  server_.host().SetOpen("web", DeviceKind::kImc, true);
  const auto swapped = Swap("imc", Source(after));
  ASSERT_TRUE(swapped.ok()) << swapped.status();
  EXPECT_EQ(swapped->file().blob(), after);
  EXPECT_EQ(swapped->size_bytes(), 5);
  EXPECT_EQ(swapped->active().file().blob(), before);
  EXPECT_EQ(swapped->active().size_bytes(), 3);
  EXPECT_NE(swapped->etag(), attached->etag());
  ExpectError(Swap("imc", Source(before), {}, attached->etag()), StatusCode::kAborted,
              "ETAG_MISMATCH");
}

TEST_F(ServicesTest, MaskKeepsWhatItDoesNotName) {
  ASSERT_TRUE(CreateVm("web").ok());
  const std::string before = Blob("one");
  const std::string after = Blob("two");
  ASSERT_TRUE(Attach("boot", before).ok());
  const auto renamed = Swap("boot", Source(after, "initrd"), {"file.file_name"});
  ASSERT_TRUE(renamed.ok()) << renamed.status();
  EXPECT_EQ(renamed->file().blob(), before);
  EXPECT_EQ(renamed->file().file_name(), "initrd");
  const auto replaced = Swap("boot", Source(after));
  EXPECT_EQ(replaced->file().blob(), after);
  EXPECT_EQ(replaced->file().file_name(), "initrd");
  const auto whole = Swap("boot", Source(before, "kernel"), {"file"});
  EXPECT_EQ(whole->file().blob(), before);
  EXPECT_EQ(whole->file().file_name(), "kernel");
}

TEST_F(ServicesTest, BadUpdatesAreRefused) {
  const std::string blob = Blob("one");
  ExpectError(Swap("imc", Source(blob)), StatusCode::kNotFound, "VM_NOT_FOUND");
  ASSERT_TRUE(CreateVm("web").ok());
  ExpectError(Swap("imc", Source(blob)), StatusCode::kNotFound, "ATTACHMENT_NOT_FOUND");
  ASSERT_TRUE(Attach("imc", blob).ok());
  ExpectError(Swap("imc", Source(blob), {"open"}), StatusCode::kInvalidArgument,
              "UPDATE_MASK_INVALID");
  ExpectError(Swap("imc", Source(blob), std::vector<std::string>(9, "file")),
              StatusCode::kInvalidArgument, "UPDATE_MASK_INVALID");
  ExpectError(Swap("imc", Source("")), StatusCode::kInvalidArgument, "SOURCE_MISSING");
  ExpectError(Swap("imc", Source("blobs/x"), {"file"}), StatusCode::kInvalidArgument,
              "NAME_INVALID");
}

TEST_F(ServicesTest, ValidatedUpdateChangesNothing) {
  ASSERT_TRUE(CreateVm("web").ok());
  const std::string before = Blob("one");
  const std::string after = Blob("three");
  const auto attached = Attach("imc", before);
  const auto validated = Swap("imc", Source(after), {}, "", true);
  ASSERT_TRUE(validated.ok()) << validated.status();
  EXPECT_EQ(validated->file().blob(), after);
  EXPECT_EQ(validated->size_bytes(), 5);
  ExpectError(Swap("imc", Source(after), {}, "other", true), StatusCode::kAborted, "ETAG_MISMATCH");
  v1::GetAttachmentRequest get;
  get.set_name("vms/web/attachments/imc");
  EXPECT_EQ(client_->GetAttachment(get)->file().blob(), before);
  EXPECT_EQ(client_->GetAttachment(get)->etag(), attached->etag());
}

TEST_F(ServicesTest, OpenChannelIsDetachedByForceOnly) {
  ASSERT_TRUE(CreateVm("web").ok());
  ASSERT_TRUE(Attach("imc", Blob("hive")).ok());
  server_.host().SetOpen("web", DeviceKind::kImc, true);
  ExpectError(Detach(false), StatusCode::kFailedPrecondition, "CHANNEL_OPEN");
  ExpectError(Detach(true, "other"), StatusCode::kAborted, "ETAG_MISMATCH");
  EXPECT_TRUE(Detach(true).ok());
  ExpectError(Detach(true), StatusCode::kNotFound, "ATTACHMENT_NOT_FOUND");
}

TEST_F(ServicesTest, UploadAboveTheMessageLimitArrivesWhole) {
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

TEST_F(ServicesTest, RefusedUploadLeavesNothingBehind) {
  v1::UploadBlobRequest::Options options;
  ExpectError(Upload("abc", options), StatusCode::kInvalidArgument, "UPLOAD_SIZE_MISSING");
  options.set_size_bytes(4);
  ExpectError(Upload("abc", options), StatusCode::kInvalidArgument, "UPLOAD_SIZE_MISMATCH");
  options.set_size_bytes(2);
  ExpectError(Upload("abc", options), StatusCode::kInvalidArgument, "UPLOAD_SIZE_MISMATCH");
  options.set_size_bytes(int64_t{1} << 40);
  ExpectError(Upload("abc", options), StatusCode::kResourceExhausted, "BLOB_TOO_LARGE");
  options.set_size_bytes(3);
  options.set_expected_sha256("ABC");
  ExpectError(Upload("abc", options), StatusCode::kInvalidArgument, "DIGEST_INVALID");
  options.set_expected_sha256(std::string(64, '0'));
  ExpectError(Upload("abc", options), StatusCode::kInvalidArgument, "DIGEST_MISMATCH");
  EXPECT_EQ(server_.host().blob_count(), 0u);
  EXPECT_EQ(server_.host().uploads_under_way(), 0);
}

TEST_F(ServicesTest, ChunkAboveTheLimitIsRefused) {
  v1::UploadBlobRequest::Options options;
  options.set_size_bytes(2 << 20);
  const auto blob = client_->UploadBlob(
      options,
      [](std::string& chunk) {
        chunk.assign((1 << 20) + 1, 'x');
        return absl::OkStatus();
      },
      kTimeout);
  ExpectError(blob, StatusCode::kInvalidArgument, "UPLOAD_CHUNK_INVALID");
}

TEST_F(ServicesTest, FailingSourceCancelsTheUpload) {
  v1::UploadBlobRequest::Options options;
  options.set_size_bytes(3);
  const auto blob = client_->UploadBlob(
      options, [](std::string&) { return absl::DataLossError("disk"); }, kTimeout);
  EXPECT_EQ(blob.status(), absl::DataLossError("disk"));
  EXPECT_EQ(server_.host().blob_count(), 0u);
}

TEST_F(ServicesTest, UnknownBlobIsNotFound) {
  v1::GetBlobRequest get;
  get.set_name("blobs/" + std::string(64, '0'));
  ExpectError(client_->GetBlob(get), StatusCode::kNotFound, "BLOB_NOT_FOUND");
  get.set_name("blobs/0");
  ExpectError(client_->GetBlob(get), StatusCode::kInvalidArgument, "NAME_INVALID");
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
    EXPECT_TRUE(absl::IsInvalidArgument(Client::Make(address, kTimeout).status())) << address;
  }
  EXPECT_TRUE(Client::Make("127.0.0.1:50051", kTimeout).ok());
  EXPECT_TRUE(Client::Make("[::1]:50051", kTimeout).ok());
}

TEST(Client, NobodyAtTheAddressIsUnreachable) {
  const auto client = *Client::Make("unix:/does/not/exist.sock", kTimeout);
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
