#include "core/vmbfs/vmbfs_device.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/vmbfs/open_channel.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/pipe/message_pipe.h"

namespace vmbfs {

const hyperv::Guid kVmbfsInterfaceId =
    hyperv::Guid::FromLiteral("c376c1c3-d276-48d2-90a9-c04748072c60");
const hyperv::Guid kImcInstanceId =
    hyperv::Guid::FromLiteral("c4e5e7d1-d748-4afc-979d-683167910a55");
const hyperv::Guid kBootInstanceId =
    hyperv::Guid::FromLiteral("c63c9bdf-5fa5-4208-b03f-6b458b365592");

// A message of kMessageBytesMax, its pipe header, descriptor and trailer take
// more than three pages.
constexpr size_t kOutgoingDataPagesMin = 4;

class VmbfsDevice::Impl {
 public:
  Impl(const hyperv::Guid& instance_id, std::shared_ptr<const Backing> backing,
       BlockingRunner& blocking_runner, const VmbfsDeviceOptions& device_options)
      : offer(hyperv::MessagePipeOffer(kVmbfsInterfaceId, instance_id)),
        wanted(std::move(backing)),
        runner(blocking_runner),
        options(device_options) {}

  const hyperv::ChannelOffer offer;
  std::shared_ptr<const Backing> wanted;
  BlockingRunner& runner;
  const VmbfsDeviceOptions options;
  VmbfsDeviceStatus status;  // its counters and reasons
  OpenChannel::Reporter reporter;
  std::shared_ptr<OpenChannel> channel;  // null while closed
};

VmbfsDevice::VmbfsDevice(const hyperv::Guid& instance_id, std::shared_ptr<const Backing> backing,
                         BlockingRunner& runner, const VmbfsDeviceOptions& options)
    : impl_(std::make_unique<Impl>(instance_id, std::move(backing), runner, options)) {}

VmbfsDevice::~VmbfsDevice() = default;

void VmbfsDevice::SetReporter(std::function<void(std::string_view reason)> reporter) {
  impl_->reporter = std::move(reporter);
}

void VmbfsDevice::SetBacking(std::shared_ptr<const Backing> backing) {
  impl_->wanted = std::move(backing);
}

std::shared_ptr<const Backing> VmbfsDevice::active() const {
  return impl_->channel == nullptr ? nullptr : impl_->channel->session().backing();
}

VmbfsDeviceStatus VmbfsDevice::status() const {
  VmbfsDeviceStatus status = impl_->status;
  status.wanted = impl_->wanted->Describe();
  if (impl_->channel != nullptr) {
    status.open = true;
    status.ready = impl_->channel->session().ready();
    status.active = impl_->channel->session().backing()->Describe();
  }
  return status;
}

const hyperv::ChannelOffer& VmbfsDevice::offer() const { return impl_->offer; }

absl::Status VmbfsDevice::Open(std::unique_ptr<hyperv::Channel> channel,
                               std::function<void()> wake) {
  const size_t data_bytes = channel->outgoing().data_bytes();
  hyperv::MessagePipe pipe(std::move(channel), hyperv::GpaDirect::kServed);
  if (pipe.max_message_bytes() < kMessageBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("vmbfs: the host-to-guest ring has ", data_bytes / hyperv::kPageBytes,
                     " data pages (", data_bytes, " bytes); at least ", kOutgoingDataPagesMin,
                     " are needed, or a message of ", kMessageBytesMax, " bytes never fits"));
  }
  impl_->channel =
      std::make_shared<OpenChannel>(std::move(pipe), impl_->wanted, impl_->options, std::move(wake),
                                    impl_->runner, impl_->status, impl_->reporter);
  ++impl_->status.opens;
  return absl::OkStatus();
}

// A wake may still be under way when the channel closes.
absl::StatusOr<hyperv::ChannelTurn> VmbfsDevice::Run() {
  if (impl_->channel == nullptr) return hyperv::ChannelTurn{};
  return impl_->channel->Run();
}

absl::StatusOr<hyperv::Armed> VmbfsDevice::Arm() {
  if (impl_->channel == nullptr) return hyperv::Armed::kSignal;
  return impl_->channel->Arm();
}

void VmbfsDevice::Close() { impl_->channel.reset(); }

}  // namespace vmbfs
