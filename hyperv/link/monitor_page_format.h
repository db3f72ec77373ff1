// The monitor page of VMBus: bytes in guest memory by which a guest signals
// without a hypercall. Source: shared/specs/vmbus.md section 1.7.

#pragma once

#include <boost/endian/buffers.hpp>
#include <cstddef>
#include <cstdint>

namespace vmbfs::hyperv {

inline constexpr uint8_t kMonitorGroups = 4;
inline constexpr uint8_t kMonitorsPerGroup = 32;

struct MonitorTriggerGroup {
  boost::endian::little_uint32_buf_t pending;  // a bit a monitor: set by the guest
  boost::endian::little_uint32_buf_t armed;
};
static_assert(sizeof(MonitorTriggerGroup) == 8 && alignof(MonitorTriggerGroup) == 1);
static_assert(offsetof(MonitorTriggerGroup, pending) == 0);
static_assert(offsetof(MonitorTriggerGroup, armed) == 4);

struct MonitorParameter {
  boost::endian::little_uint32_buf_t connection_id;
  boost::endian::little_uint16_buf_t event_flag;
  boost::endian::little_uint16_buf_t reserved;
};
static_assert(sizeof(MonitorParameter) == 8 && alignof(MonitorParameter) == 1);
static_assert(offsetof(MonitorParameter, connection_id) == 0);
static_assert(offsetof(MonitorParameter, event_flag) == 4);
static_assert(offsetof(MonitorParameter, reserved) == 6);

struct MonitorPage {
  boost::endian::little_uint32_buf_t trigger_state;  // bits 0 to 3: group enabled
  boost::endian::little_uint32_buf_t reserved;
  MonitorTriggerGroup trigger_groups[kMonitorGroups];
  uint8_t reserved2[24];
  boost::endian::little_uint32_buf_t next_check_time[kMonitorGroups][kMonitorsPerGroup];
  boost::endian::little_uint16_buf_t latency[kMonitorGroups][kMonitorsPerGroup];  // 100 ns
  uint8_t reserved3[256];
  MonitorParameter parameters[kMonitorGroups][kMonitorsPerGroup];
  uint8_t reserved4[1984];
};
static_assert(sizeof(MonitorPage) == 4096 && alignof(MonitorPage) == 1);
static_assert(offsetof(MonitorPage, trigger_state) == 0);
static_assert(offsetof(MonitorPage, reserved) == 4);
static_assert(offsetof(MonitorPage, trigger_groups) == 8);
static_assert(offsetof(MonitorPage, reserved2) == 0x28);
static_assert(offsetof(MonitorPage, next_check_time) == 0x40);
static_assert(offsetof(MonitorPage, latency) == 0x240);
static_assert(offsetof(MonitorPage, reserved3) == 0x340);
static_assert(offsetof(MonitorPage, parameters) == 0x440);
static_assert(offsetof(MonitorPage, reserved4) == 0x840);

// Where monitor `id`, one of 128, is pending: a word of the page, and a bit in it.
constexpr size_t MonitorPendingOffset(uint8_t id) {
  return offsetof(MonitorPage, trigger_groups) +
         id / kMonitorsPerGroup * sizeof(MonitorTriggerGroup);
}
constexpr uint32_t MonitorPendingBit(uint8_t id) { return uint32_t{1} << id % kMonitorsPerGroup; }

}  // namespace vmbfs::hyperv
