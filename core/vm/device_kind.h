// The vmbfs devices a VM can have.

#pragma once

#include <optional>
#include <string_view>

namespace vmbfs {

// imc: one file, the initial machine configuration hive. boot: what the guest
// boots from. A VM has each at most once.
enum class DeviceKind { kImc, kBoot };

inline constexpr DeviceKind kDeviceKinds[] = {DeviceKind::kImc, DeviceKind::kBoot};

constexpr std::string_view DeviceName(DeviceKind kind) {
  return kind == DeviceKind::kImc ? "imc" : "boot";
}

constexpr std::optional<DeviceKind> DeviceFromName(std::string_view name) {
  for (const DeviceKind kind : kDeviceKinds) {
    if (name == DeviceName(kind)) return kind;
  }
  return std::nullopt;
}

}  // namespace vmbfs
