// A Host whose disk, folders or stored rows are not as they should be.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "core/host/host.h"
#include "core/host/host_fixture.h"
#include "core/host/host_impl.h"
#include "core/state/state_store.h"
#include "core/vmbfs/vmbfs_device.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest/guest.h"

namespace vmbfs {
namespace {

namespace fs = std::filesystem;
using absl::StatusCode;
using testing::HasSubstr;

// A real store whose changes fail on demand, as on a broken disk.
class FaultyStore final : public StateStore {
 public:
  FaultyStore(std::unique_ptr<StateStore> store, const bool& broken)
      : store_(std::move(store)), broken_(broken) {}

  absl::StatusOr<Contents> Load() override { return store_->Load(); }
  absl::StatusOr<uint64_t> InsertVm(const VmRecord& vm) override {
    return broken_ ? Broken() : store_->InsertVm(vm);
  }
  absl::Status DeleteVm(std::string_view name) override {
    return broken_ ? Broken().status() : store_->DeleteVm(name);
  }
  absl::StatusOr<uint64_t> InsertAttachment(const AttachmentRecord& attachment) override {
    return broken_ ? Broken() : store_->InsertAttachment(attachment);
  }
  absl::StatusOr<uint64_t> UpdateAttachment(const AttachmentRecord& attachment) override {
    return broken_ ? Broken() : store_->UpdateAttachment(attachment);
  }
  absl::StatusOr<uint64_t> DeleteAttachment(std::string_view vm, std::string_view device) override {
    return broken_ ? Broken() : store_->DeleteAttachment(vm, device);
  }

 private:
  static absl::StatusOr<uint64_t> Broken() {
    return absl::InternalError("state database: disk I/O error");
  }

  const std::unique_ptr<StateStore> store_;
  const bool& broken_;
};

class HostFaultTest : public HostFixture {
 protected:
  void StartOverFaultyStore() {
    host_.reset();
    auto store = OpenStateStore(options_.state_dir);
    ASSERT_TRUE(store.ok()) << store.status();
    auto host = HostImpl::Start(options_, std::make_unique<FaultyStore>(*std::move(store), broken_),
                                [] { return 17; });
    ASSERT_TRUE(host.ok()) << host.status();
    host_ = *std::move(host);
  }

  static void ExpectStoreFailed(const absl::Status& status) {
    ExpectError(status, StatusCode::kInternal, "STATE_STORE_FAILED");
  }

  fs::path LinkOf(const std::string& vm) const {
    return options_.runtime_dir / "vm" / (vm + ".sock");
  }

  bool broken_ = false;
};

// A socket that listens at `path`.
hyperv::UniqueFd ListenAt(const fs::path& path) {
  hyperv::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(listen(fd.get(), 1), 0);
  return fd;
}

bool CanConnect(const fs::path& path) {
  const hyperv::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  return connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

TEST_F(HostFaultTest, VmThatIsNotStoredLeavesNothing) {
  StartOverFaultyStore();
  broken_ = true;
  ExpectStoreFailed(host_->CreateVm("web-7", {}).status());
  EXPECT_FALSE(fs::exists(LinkOf("web-7")));
  ExpectError(host_->GetVm("web-7").status(), StatusCode::kNotFound, "VM_NOT_FOUND");
  broken_ = false;
  EXPECT_TRUE(host_->CreateVm("web-7", {}).ok());
}

TEST_F(HostFaultTest, ChangesThatAreNotStoredChangeNothing) {
  StartOverFaultyStore();
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  const FileContent old_content = Upload("old");
  const auto imc = host_->Attach("web-7", DeviceKind::kImc, old_content);
  ASSERT_TRUE(imc.ok());
  broken_ = true;
  ExpectStoreFailed(host_->Attach("web-7", DeviceKind::kBoot, old_content).status());
  ExpectStoreFailed(host_->Swap("web-7", DeviceKind::kImc, Upload("new"), "").status());
  ExpectStoreFailed(host_->Detach("web-7", DeviceKind::kImc, false, ""));
  ExpectStoreFailed(host_->Detach("web-7", DeviceKind::kImc, true, ""));
  ExpectStoreFailed(host_->DeleteVm("web-7", false, ""));
  ExpectStoreFailed(host_->DeleteVm("web-7", true, ""));

  const auto vm = host_->GetVm("web-7");
  ASSERT_TRUE(vm.ok()) << vm.status();
  ASSERT_EQ(vm->attachments.size(), 1u);
  EXPECT_EQ(vm->attachments[0].etag, imc->etag);
  EXPECT_EQ(vm->attachments[0].wanted.sha256, old_content.sha256);
  EXPECT_THAT(Seen("vms/web-7/devices/imc/wanted"), HasSubstr(old_content.sha256));
  EXPECT_EQ(Seen("vms/web-7/devices/boot"), "");
  EXPECT_TRUE(CanConnect(LinkOf("web-7")));
}

TEST_F(HostFaultTest, DeviceWhoseRemovalIsNotStoredCanBeOpened) {
  StartOverFaultyStore();
  const auto vm = host_->CreateVm("web-7", {});
  ASSERT_TRUE(host_->Attach("web-7", DeviceKind::kImc, Upload("hive")).ok());
  hyperv::GuestOptions options;
  options.socket_path = vm->link_path;
  const auto guest = hyperv::Guest::Start(options);
  ASSERT_TRUE(guest.ok()) << guest.status();
  ASSERT_TRUE((*guest)->Connect().ok());
  const auto offer = (*guest)->WaitForOffer(kVmbfsInterfaceId, kImcInstanceId);
  ASSERT_TRUE(offer.ok()) << offer.status();
  broken_ = true;
  ExpectStoreFailed(host_->Detach("web-7", DeviceKind::kImc, false, ""));
  auto channel = (*guest)->Open(*offer);
  ASSERT_TRUE(channel.ok()) << channel.status();
  ASSERT_TRUE((*guest)->Close(*std::move(channel)).ok());
  ExpectStoreFailed(host_->DeleteVm("web-7", false, ""));
  EXPECT_TRUE((*guest)->Open(*offer).ok());
}

TEST_F(HostFaultTest, TimesComeFromTheClock) {
  StartOverFaultyStore();
  EXPECT_EQ(host_->CreateVm("web-7", {})->create_time_us, 17);
}

TEST_F(HostFaultTest, SecondDaemonIsRefusedAndDisturbsNothing) {
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  auto writer = host_->blobs().Begin(10).value();
  const absl::Status status = Host::Start(options_).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr(options_.state_dir.string()));
  EXPECT_TRUE(CanConnect(LinkOf("web-7")));
  EXPECT_TRUE(writer->Finish(std::nullopt).ok());
}

TEST_F(HostFaultTest, StaleSocketIsReplaced) {
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  host_.reset();
  ListenAt(LinkOf("web-7")).reset();
  ASSERT_TRUE(fs::exists(LinkOf("web-7")));
  EXPECT_FALSE(CanConnect(LinkOf("web-7")));
  Restart();
  EXPECT_TRUE(CanConnect(LinkOf("web-7")));
}

TEST_F(HostFaultTest, LinkPathThatALiveSocketHasMakesStartFailWithTheVmsName) {
  ASSERT_TRUE(host_->CreateVm("db-1", {}).ok());
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  host_.reset();
  const hyperv::UniqueFd taken = ListenAt(LinkOf("web-7"));
  const absl::Status status = Host::Start(options_).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("vm web-7: "));
  EXPECT_FALSE(fs::exists(LinkOf("db-1")));
}

TEST_F(HostFaultTest, LinkPathThatAFileHasMakesCreateFail) {
  std::ofstream(LinkOf("web-7")) << "mine";
  ExpectError(host_->CreateVm("web-7", {}).status(), StatusCode::kFailedPrecondition,
              "LINK_PATH_TAKEN");
  EXPECT_TRUE(fs::is_regular_file(LinkOf("web-7")));
  fs::remove(LinkOf("web-7"));
  EXPECT_TRUE(host_->CreateVm("web-7", {}).ok());
}

TEST_F(HostFaultTest, LostBlobLeavesOtherVmsServedAndIsRepairedByTheSameContent) {
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  const FileContent content = Upload("hive");
  ASSERT_TRUE(host_->Attach("web-7", DeviceKind::kImc, content).ok());
  for (const bool swap : {true, false}) {
    host_.reset();
    fs::remove(options_.state_dir / "blobs" / content.sha256.substr(0, 2) / content.sha256);
    Restart();
    EXPECT_THAT(Seen("vms/web-7/devices/imc/wanted"),
                HasSubstr("unreadable file imc.hiv, 4 bytes: no blob " + content.sha256));
    const FileContent again = Upload("hive");
    const auto repaired = swap ? host_->Swap("web-7", DeviceKind::kImc, again, "")
                               : host_->AttachOrSwap("web-7", DeviceKind::kImc, again, "");
    ASSERT_TRUE(repaired.ok()) << repaired.status();
    EXPECT_EQ(Seen("vms/web-7/devices/imc/wanted"),
              "file imc.hiv, 4 bytes, sha256 " + content.sha256);
  }
}

TEST_F(HostFaultTest, RowThatThisProgramWouldNotWriteMakesStartFailWithItsKey) {
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  host_.reset();
  AttachmentRecord record{.vm = "web-7",
                          .device = "disk",
                          .source_kind = "blob",
                          .sha256 = std::string(64, 'a'),
                          .size_bytes = 1,
                          .file_name = "imc.hiv",
                          .create_time_us = 1,
                          .update_time_us = 1};
  ASSERT_TRUE(OpenStateStore(options_.state_dir).value()->InsertAttachment(record).ok());
  absl::Status status = Host::Start(options_).status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_EQ(std::string(status.message()),
            "state database: table attachments, row \"web-7\", \"disk\": no such device");

  ASSERT_TRUE(OpenStateStore(options_.state_dir).value()->DeleteAttachment("web-7", "disk").ok());
  record.device = "imc";
  record.source_kind = "tape";
  ASSERT_TRUE(OpenStateStore(options_.state_dir).value()->InsertAttachment(record).ok());
  status = Host::Start(options_).status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("row \"web-7\", \"imc\": this program has"));

  ASSERT_TRUE(OpenStateStore(options_.state_dir).value()->DeleteVm("web-7").ok());
  const VmRecord bad{
      .name = "../web", .owner_uid = std::nullopt, .create_time_us = 1, .revision = 0};
  ASSERT_TRUE(OpenStateStore(options_.state_dir).value()->InsertVm(bad).ok());
  EXPECT_EQ(Host::Start(options_).status().code(), StatusCode::kDataLoss);
}

TEST_F(HostFaultTest, RuntimeFolderInWhichOthersMayRenameIsRefused) {
  host_.reset();
  fs::remove_all(options_.runtime_dir);
  fs::create_directory(options_.runtime_dir);
  ASSERT_EQ(chmod(options_.runtime_dir.c_str(), 0777), 0);
  EXPECT_EQ(Host::Start(options_).status().code(), StatusCode::kFailedPrecondition);
  // As a folder for everybody's temporary files is.
  ASSERT_EQ(chmod(options_.runtime_dir.c_str(), 01777), 0);
  Restart();
  EXPECT_EQ(fs::status(options_.runtime_dir).permissions(), fs::perms(01777));
}

TEST_F(HostFaultTest, LinkFolderThatIsASymbolicLinkIsRefused) {
  host_.reset();
  fs::remove(options_.runtime_dir / "vm");
  fs::create_directory_symlink(folder_, options_.runtime_dir / "vm");
  EXPECT_EQ(Host::Start(options_).status().code(), StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace vmbfs
