#include "core/host/host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/host/host_fixture.h"

namespace vmbfs {
namespace {

namespace fs = std::filesystem;
using absl::StatusCode;
using testing::HasSubstr;

using HostTest = HostFixture;

mode_t ModeOf(const fs::path& path) {
  struct stat info{};
  EXPECT_EQ(lstat(path.c_str(), &info), 0) << path;
  return info.st_mode & 07777;
}

std::vector<std::string> NamesOf(const std::vector<VmView>& vms) {
  std::vector<std::string> names;
  for (const VmView& vm : vms) names.push_back(vm.name);
  return names;
}

TEST(HostError, CarriesReasonAndMessage) {
  const absl::Status status = HostError(StatusCode::kNotFound, "VM_NOT_FOUND", "no such vm");
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "no such vm");
  EXPECT_EQ(ReasonOf(status), "VM_NOT_FOUND");
  EXPECT_EQ(ReasonOf(absl::InternalError("")), "");
}

TEST_F(HostTest, CreatedVmIsShownWithItsLink) {
  const auto created = host_->CreateVm("web-7", {});
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->name, "web-7");
  EXPECT_EQ(created->link_path, (folder_ / "run" / "vm" / "web-7.sock").string());
  EXPECT_FALSE(created->link_connected);
  EXPECT_EQ(created->etag, "r1");
  EXPECT_GT(created->create_time_us, int64_t{1'600'000'000} * 1'000'000);
  EXPECT_TRUE(created->attachments.empty());
  EXPECT_EQ(created->live_error, "");

  const auto got = host_->GetVm("web-7");
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->link_path, created->link_path);
  EXPECT_EQ(got->etag, created->etag);
  EXPECT_EQ(got->create_time_us, created->create_time_us);
}

TEST_F(HostTest, FoldersCanBeSearchedAndSocketsAreThePrivateOnesOfTheirOwner) {
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  EXPECT_EQ(ModeOf(options_.state_dir), 0700u);
  EXPECT_EQ(ModeOf(options_.runtime_dir), 0711u);
  EXPECT_EQ(ModeOf(options_.runtime_dir / "vm"), 0711u);
  EXPECT_EQ(ModeOf(options_.runtime_dir / "vm" / "web-7.sock"), 0600u);
}

TEST_F(HostTest, SocketBelongsToTheOwnerThatWasGiven) {
  if (chown(options_.runtime_dir.c_str(), 12345, gid_t(-1)) != 0 ||
      chown(options_.runtime_dir.c_str(), geteuid(), gid_t(-1)) != 0) {
    GTEST_SKIP() << "needs the right to give files away, and this user to be known here";
  }
  const auto vm = host_->CreateVm("web-7", {.owner_uid = 12345});
  ASSERT_TRUE(vm.ok()) << vm.status();
  EXPECT_EQ(vm->owner_uid, 12345u);
  struct stat info{};
  ASSERT_EQ(lstat(vm->link_path.c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 12345u);
}

TEST_F(HostTest, NameThatCannotNameAVmIsRefused) {
  for (const std::string& name :
       {std::string(), std::string(".."), std::string("-a"), std::string("_a"), std::string("a/b"),
        std::string("a b"), std::string("a\0b", 3), std::string("\xc3\xa4"),
        std::string(64, 'a')}) {
    ExpectError(host_->CreateVm(name, {}).status(), StatusCode::kInvalidArgument,
                "VM_NAME_INVALID");
  }
  EXPECT_TRUE(host_->CreateVm("A.b_c-9", {}).ok());
}

TEST_F(HostTest, NameTakenIsRefused) {
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  ExpectError(host_->CreateVm("web-7", {}).status(), StatusCode::kAlreadyExists,
              "VM_ALREADY_EXISTS");
}

TEST_F(HostTest, LinkPathLongerThanASocketsIsRefusedWithBothLengths) {
  const std::string runtime_dir = options_.runtime_dir.string();
  // `runtime_dir/` and a folder's name, then `/vm/` + name + `.sock`.
  const std::string name(20, 'n');
  const size_t rest = 107 - runtime_dir.size() - 1 - 4 - name.size() - 5;
  options_.runtime_dir /= std::string(rest, 'd');
  Restart();
  const auto longest = host_->CreateVm(name, {});
  ASSERT_TRUE(longest.ok()) << longest.status();
  EXPECT_EQ(longest->link_path.size(), 107u);
  const absl::Status status = host_->CreateVm(name + "n", {}).status();
  ExpectError(status, StatusCode::kInvalidArgument, "LINK_PATH_TOO_LONG");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("has 108 bytes; a socket's path has at most 107"));
}

TEST_F(HostTest, ListGoesByNameInPages) {
  for (const char* name : {"c", "a", "d", "b"}) {
    ASSERT_TRUE(host_->CreateVm(name, {}).ok());
  }
  const auto first = host_->ListVms("", 3);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(NamesOf(first->vms), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(first->next_after, "c");
  const auto second = host_->ListVms(first->next_after, 3);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(NamesOf(second->vms), (std::vector<std::string>{"d"}));
  EXPECT_EQ(second->next_after, "");
  EXPECT_EQ(host_->ListVms("", 4)->next_after, "");
}

TEST_F(HostTest, UnknownVmIsNotFoundByEveryCall) {
  const FileContent content = Upload("hive");
  for (const absl::Status& status : {host_->GetVm("x").status(), host_->DeleteVm("x", true, ""),
                                     host_->Attach("x", DeviceKind::kImc, content).status(),
                                     host_->GetAttachment("x", DeviceKind::kImc).status(),
                                     host_->Swap("x", DeviceKind::kImc, content, "").status(),
                                     host_->Detach("x", DeviceKind::kImc, true, "")}) {
    ExpectError(status, StatusCode::kNotFound, "VM_NOT_FOUND");
  }
}

TEST_F(HostTest, DeletedVmIsGoneWithItsSocketAndItsNameIsFree) {
  const auto vm = host_->CreateVm("web-7", {});
  ASSERT_TRUE(vm.ok());
  ASSERT_TRUE(host_->Attach("web-7", DeviceKind::kImc, Upload("hive")).ok());
  ASSERT_TRUE(host_->DeleteVm("web-7", false, "").ok());
  EXPECT_FALSE(fs::exists(vm->link_path));
  ExpectError(host_->GetVm("web-7").status(), StatusCode::kNotFound, "VM_NOT_FOUND");
  const auto again = host_->CreateVm("web-7", {});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->attachments.empty());
  EXPECT_NE(again->etag, vm->etag);
}

TEST_F(HostTest, DeleteWithAnOldEtagIsRefused) {
  const auto created = host_->CreateVm("web-7", {});
  ASSERT_TRUE(host_->Attach("web-7", DeviceKind::kImc, Upload("hive")).ok());
  ExpectError(host_->DeleteVm("web-7", true, created->etag), StatusCode::kAborted, "ETAG_MISMATCH");
  EXPECT_TRUE(host_->DeleteVm("web-7", true, host_->GetVm("web-7")->etag).ok());
}

TEST_F(HostTest, AttachedFilesAreShownInTheOrderOfDevices) {
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  const FileContent boot = Upload("image", "boot\xc3\xa4.wim");
  const FileContent hive = Upload("hive", "ignored/name");
  const auto of_boot = host_->Attach("web-7", DeviceKind::kBoot, boot);
  ASSERT_TRUE(of_boot.ok()) << of_boot.status();
  EXPECT_EQ(of_boot->wanted.name, "boot\xc3\xa4.wim");
  const auto of_imc = host_->Attach("web-7", DeviceKind::kImc, hive);
  ASSERT_TRUE(of_imc.ok()) << of_imc.status();
  EXPECT_EQ(of_imc->vm, "web-7");
  EXPECT_EQ(of_imc->wanted.name, "imc.hiv");
  EXPECT_EQ(of_imc->wanted.sha256, hive.sha256);
  EXPECT_EQ(of_imc->wanted.size_bytes, 4u);
  EXPECT_FALSE(of_imc->active.has_value());
  EXPECT_FALSE(of_imc->open);

  const auto vm = host_->GetVm("web-7");
  ASSERT_EQ(vm->attachments.size(), 2u);
  EXPECT_EQ(vm->attachments[0].device, DeviceKind::kImc);
  EXPECT_EQ(vm->attachments[1].device, DeviceKind::kBoot);
  EXPECT_EQ(vm->attachments[0].etag, host_->GetAttachment("web-7", DeviceKind::kImc)->etag);
}

TEST_F(HostTest, SecondAttachmentToADeviceIsRefused) {
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  ASSERT_TRUE(host_->Attach("web-7", DeviceKind::kImc, Upload("hive")).ok());
  ExpectError(host_->Attach("web-7", DeviceKind::kImc, Upload("other")).status(),
              StatusCode::kAlreadyExists, "DEVICE_ALREADY_ATTACHED");
}

TEST_F(HostTest, ContentThatIsNotThereOrDoesNotFitIsRefused) {
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  const auto attach = [this](DeviceKind device, const FileContent& content) {
    return host_->Attach("web-7", device, content).status();
  };
  FileContent content = Upload("hive");
  content.sha256 = std::string(64, '0');
  ExpectError(attach(DeviceKind::kImc, content), StatusCode::kNotFound, "BLOB_NOT_FOUND");
  content.sha256 = "../../state.db";
  ExpectError(attach(DeviceKind::kImc, content), StatusCode::kInvalidArgument,
              "BLOB_DIGEST_INVALID");
  content = Upload("hive");
  content.size_bytes = 5;
  ExpectError(attach(DeviceKind::kImc, content), StatusCode::kInvalidArgument,
              "CONTENT_SIZE_MISMATCH");
  ExpectError(attach(DeviceKind::kImc, Upload("")), StatusCode::kInvalidArgument,
              "CONTENT_SIZE_INVALID");
  ExpectError(attach(DeviceKind::kImc, Upload(std::string(kImcBytesMax + 1, 'x'))),
              StatusCode::kInvalidArgument, "CONTENT_SIZE_INVALID");
  ExpectError(attach(DeviceKind::kBoot, Upload(std::string(options_.boot_bytes_max + 1, 'x'))),
              StatusCode::kInvalidArgument, "CONTENT_SIZE_INVALID");
  for (const char* name : {"", ".", "..", "efi/boot.wim", "efi\\boot.wim", "a\nb", "\xff"}) {
    ExpectError(attach(DeviceKind::kBoot, Upload("image", name)), StatusCode::kInvalidArgument,
                "FILE_NAME_INVALID");
  }
  EXPECT_TRUE(host_->GetVm("web-7")->attachments.empty());
}

TEST_F(HostTest, ContentOfExactlyTheLimitFits) {
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  EXPECT_TRUE(
      host_->Attach("web-7", DeviceKind::kImc, Upload(std::string(kImcBytesMax, 'x'))).ok());
  EXPECT_TRUE(host_->Attach("web-7", DeviceKind::kBoot, Upload("")).ok());
  EXPECT_TRUE(
      host_->Swap("web-7", DeviceKind::kBoot, Upload(std::string(options_.boot_bytes_max, 'x')), "")
          .ok());
}

TEST_F(HostTest, SizeLeftOutIsTheBlobs) {
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  FileContent content = Upload("hive");
  content.size_bytes = 0;
  EXPECT_EQ(host_->Attach("web-7", DeviceKind::kImc, content)->wanted.size_bytes, 4u);
}

TEST_F(HostTest, SwapChangesWhatIsWantedAndItsEtag) {
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  const auto attached = host_->Attach("web-7", DeviceKind::kImc, Upload("old"));
  const FileContent content = Upload("new one");
  const auto swapped = host_->Swap("web-7", DeviceKind::kImc, content, attached->etag);
  ASSERT_TRUE(swapped.ok()) << swapped.status();
  EXPECT_EQ(swapped->wanted.sha256, content.sha256);
  EXPECT_EQ(swapped->wanted.size_bytes, 7u);
  EXPECT_NE(swapped->etag, attached->etag);
  EXPECT_EQ(swapped->create_time_us, attached->create_time_us);
  EXPECT_GE(swapped->update_time_us, attached->update_time_us);
  EXPECT_THAT(Seen("vms/web-7/devices/imc/wanted"), HasSubstr(content.sha256));

  ExpectError(host_->Swap("web-7", DeviceKind::kImc, content, attached->etag).status(),
              StatusCode::kAborted, "ETAG_MISMATCH");
}

TEST_F(HostTest, AttachOrSwapDoesWhatIsMissingAndNothingWhenRepeated) {
  const FileContent first = Upload("first");
  const FileContent second = Upload("second");
  const auto provide = [&](const FileContent& content, const std::string& etag) {
    return host_->AttachOrSwap("web-7", DeviceKind::kImc, content, etag);
  };
  ExpectError(provide(first, "").status(), StatusCode::kNotFound, "VM_NOT_FOUND");
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  ExpectError(provide(first, "r1").status(), StatusCode::kAborted, "ETAG_MISMATCH");
  const auto attached = provide(first, "");
  ASSERT_TRUE(attached.ok()) << attached.status();
  EXPECT_EQ(attached->wanted.sha256, first.sha256);

  Restart();
  for (const std::string& etag : {std::string(), attached->etag, std::string("r999")}) {
    const auto again = provide(first, etag);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->etag, attached->etag);
    EXPECT_EQ(again->update_time_us, attached->update_time_us);
  }
  ExpectError(provide(second, "r999").status(), StatusCode::kAborted, "ETAG_MISMATCH");
  const auto swapped = provide(second, attached->etag);
  ASSERT_TRUE(swapped.ok()) << swapped.status();
  EXPECT_EQ(swapped->wanted.sha256, second.sha256);
  EXPECT_NE(swapped->etag, attached->etag);
  EXPECT_EQ(swapped->create_time_us, attached->create_time_us);
  FileContent missing = first;
  missing.sha256 = std::string(64, '0');
  ExpectError(provide(missing, "").status(), StatusCode::kNotFound, "BLOB_NOT_FOUND");
}

TEST_F(HostTest, DetachedDeviceIsGoneAndMayBeAttachedAgain) {
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  const auto attached = host_->Attach("web-7", DeviceKind::kImc, Upload("hive"));
  ExpectError(host_->Detach("web-7", DeviceKind::kImc, true, "r999"), StatusCode::kAborted,
              "ETAG_MISMATCH");
  ASSERT_TRUE(host_->Detach("web-7", DeviceKind::kImc, false, attached->etag).ok());
  for (const absl::Status& status :
       {host_->GetAttachment("web-7", DeviceKind::kImc).status(),
        host_->Swap("web-7", DeviceKind::kImc, Upload("hive"), "").status(),
        host_->Detach("web-7", DeviceKind::kImc, false, "")}) {
    ExpectError(status, StatusCode::kNotFound, "ATTACHMENT_NOT_FOUND");
  }
  EXPECT_EQ(Seen("vms/web-7/devices/imc"), "");
  const auto again = host_->Attach("web-7", DeviceKind::kImc, Upload("hive"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_NE(again->etag, attached->etag);
}

TEST_F(HostTest, EverythingIsThereAfterARestart) {
  const auto web = host_->CreateVm("web-7", {});
  const VmOptions options{.owner_uid = geteuid(), .allow_unsealed_memory = true, .monitored = true};
  const auto db = host_->CreateVm("db-1", options);
  ASSERT_TRUE(db->allow_unsealed_memory && db->monitored);
  ASSERT_TRUE(host_->CreateVm("gone", {}).ok());
  ASSERT_TRUE(host_->Attach("web-7", DeviceKind::kImc, Upload("hive")).ok());
  ASSERT_TRUE(host_->Attach("web-7", DeviceKind::kBoot, Upload("old", "old.wim")).ok());
  ASSERT_TRUE(host_->Attach("db-1", DeviceKind::kImc, Upload("hive")).ok());
  const FileContent swapped = Upload("new", "new.wim");
  ASSERT_TRUE(host_->Swap("web-7", DeviceKind::kBoot, swapped, "").ok());
  ASSERT_TRUE(host_->Detach("db-1", DeviceKind::kImc, false, "").ok());
  ASSERT_TRUE(host_->DeleteVm("gone", false, "").ok());
  const auto before = host_->ListVms("", 10);
  Restart();

  const auto after = host_->ListVms("", 10);
  ASSERT_EQ(NamesOf(after->vms), (std::vector<std::string>{"db-1", "web-7"}));
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(after->vms[i].etag, before->vms[i].etag);
    EXPECT_EQ(after->vms[i].owner_uid, before->vms[i].owner_uid);
    EXPECT_EQ(after->vms[i].allow_unsealed_memory, before->vms[i].allow_unsealed_memory);
    EXPECT_EQ(after->vms[i].monitored, before->vms[i].monitored);
    EXPECT_EQ(after->vms[i].create_time_us, before->vms[i].create_time_us);
    EXPECT_TRUE(fs::is_socket(after->vms[i].link_path));
  }
  EXPECT_TRUE(after->vms[0].attachments.empty());
  ASSERT_EQ(after->vms[1].attachments.size(), 2u);
  const AttachmentView& boot = after->vms[1].attachments[1];
  EXPECT_EQ(boot.wanted.sha256, swapped.sha256);
  EXPECT_EQ(boot.wanted.name, "new.wim");
  EXPECT_EQ(boot.etag, before->vms[1].attachments[1].etag);
  EXPECT_THAT(Seen("vms/web-7/devices/boot/wanted"), HasSubstr("new.wim"));
  EXPECT_EQ(host_->blobs().Find(swapped.sha256)->size_bytes, 3u);
}

TEST_F(HostTest, EndUnlinksTheSockets) {
  const auto vm = host_->CreateVm("web-7", {});
  host_.reset();
  EXPECT_FALSE(fs::exists(vm->link_path));
}

TEST_F(HostTest, UploadLimitIsThatOfTheLargestDevice) {
  EXPECT_EQ(host_->upload_bytes_max(), kImcBytesMax);
  options_.boot_bytes_max = uint64_t{4} << 30;
  Restart();
  EXPECT_EQ(host_->upload_bytes_max(), uint64_t{4} << 30);
}

TEST_F(HostTest, InspectShowsTheDaemonAndItsVms) {
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  const FileContent content = Upload("hive");
  ASSERT_TRUE(host_->Attach("web-7", DeviceKind::kImc, content).ok());
  EXPECT_EQ(Seen("daemon/pid"), std::to_string(getpid()));
  EXPECT_EQ(Seen("daemon/state_dir"), options_.state_dir.string());
  EXPECT_EQ(Seen("daemon/data_plane_threads"), "2");
  EXPECT_EQ(Seen("daemon/memory_mappings"), "0");
  EXPECT_NE(Seen("daemon/memory_mappings_max"), "0");
  EXPECT_EQ(Seen("daemon/ring_mappings"), "0");
  EXPECT_NE(Seen("daemon/ring_mappings_max"), "0");
  EXPECT_EQ(Seen("vms/web-7/link/connected"), "0");
  EXPECT_EQ(Seen("vms/web-7/link/listening"), "1");
  EXPECT_EQ(Seen("vms/web-7/bus/state"), "no VMM");
  EXPECT_EQ(Seen("vms/web-7/channels/imc/open"), "0");
  EXPECT_EQ(Seen("vms/web-7/devices/imc/opens"), "0");
  EXPECT_EQ(Seen("vms/web-7/backings/imc/wanted/sha256"), content.sha256);
  ExpectError(host_->Inspect("vms/web-8", 1).status(), StatusCode::kNotFound,
              "INSPECT_PATH_NOT_FOUND");
}

}  // namespace
}  // namespace vmbfs
