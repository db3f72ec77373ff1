// Attachments over a real socket.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/host/host.h"
#include "grpc/server/services_fixture.h"

namespace vmbfs::rpc {
namespace {

using absl::StatusCode;

using AttachmentsTest = ServicesTest;

v1::FileSource Source(const std::string& blob, const std::string& file_name = "") {
  v1::FileSource file;
  file.set_blob(blob);
  file.set_file_name(file_name);
  return file;
}

TEST_F(AttachmentsTest, VmWithAnOpenChannelIsDeletedByForceOnly) {
  ASSERT_TRUE(CreateVm("web").ok());
  ASSERT_TRUE(Attach("imc", Blob("hive")).ok());
  server_.host().SetOpen("web", DeviceKind::kImc, true);
  v1::DeleteVmRequest request;
  request.set_name("vms/web");
  ExpectError(client_->DeleteVm(request), StatusCode::kFailedPrecondition, "CHANNEL_OPEN");
  request.set_force(true);
  EXPECT_TRUE(client_->DeleteVm(request).ok());
}

TEST_F(AttachmentsTest, AttachmentShowsItsContent) {
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

TEST_F(AttachmentsTest, BadAttachmentsAreRefused) {
  const std::string blob = Blob("hive");
  ExpectError(Attach("imc", blob), StatusCode::kNotFound, "VM_NOT_FOUND");
  ASSERT_TRUE(CreateVm("web").ok());
  ExpectError(Attach("disk", blob), StatusCode::kInvalidArgument, "NAME_INVALID");
  ExpectError(Attach("imc", ""), StatusCode::kInvalidArgument, "NAME_INVALID");
  ExpectError(Attach("imc", "blobs/" + std::string(64, '0')), StatusCode::kNotFound,
              "BLOB_NOT_FOUND");
  ExpectError(Attach("imc", Blob("")), StatusCode::kInvalidArgument, "CONTENT_SIZE_INVALID");
  ASSERT_TRUE(Attach("imc", blob).ok());
  ExpectError(Attach("imc", blob), StatusCode::kAlreadyExists, "DEVICE_ALREADY_ATTACHED");

  v1::CreateAttachmentRequest without_source;
  without_source.set_parent("vms/web");
  without_source.set_attachment_id("boot");
  ExpectError(client_->CreateAttachment(without_source), StatusCode::kInvalidArgument,
              "SOURCE_MISSING");
}

TEST_F(AttachmentsTest, ValidatedAttachmentIsNotMade) {
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
  ExpectError(Attach("imc", blob, true), StatusCode::kAlreadyExists, "DEVICE_ALREADY_ATTACHED");
}

TEST_F(AttachmentsTest, SwapChangesWhatIsWantedAndNotWhatIsActive) {
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

TEST_F(AttachmentsTest, MaskKeepsWhatItDoesNotName) {
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

TEST_F(AttachmentsTest, BadUpdatesAreRefused) {
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

TEST_F(AttachmentsTest, ValidatedUpdateChangesNothing) {
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

TEST_F(AttachmentsTest, OpenChannelIsDetachedByForceOnly) {
  ASSERT_TRUE(CreateVm("web").ok());
  ASSERT_TRUE(Attach("imc", Blob("hive")).ok());
  server_.host().SetOpen("web", DeviceKind::kImc, true);
  ExpectError(Detach(false), StatusCode::kFailedPrecondition, "CHANNEL_OPEN");
  ExpectError(Detach(true, "other"), StatusCode::kAborted, "ETAG_MISMATCH");
  EXPECT_TRUE(Detach(true).ok());
  ExpectError(Detach(true), StatusCode::kNotFound, "ATTACHMENT_NOT_FOUND");
}

}  // namespace
}  // namespace vmbfs::rpc
