// Linux's 64-bit boot protocol: a bzImage, an initrd and the tables of a fresh
// machine in its memory.
//
// Trust: the files are an administrator's; they are checked all the same.
// Source: Linux, Documentation/arch/x86/boot.rst.

#pragma once

#include <asm/bootparam.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace vmbfs::test_vmm {

// Where the first processor begins, in 64-bit mode.
struct BootEntry {
  uint64_t instruction = 0;
  uint64_t boot_parameters = 0;
  uint64_t page_table = 0;
  uint64_t descriptor_table = 0;
};
inline constexpr uint16_t kCodeSelector = 0x10;
inline constexpr uint16_t kDataSelector = 0x18;
inline constexpr uint16_t kDescriptorTableLimit = 4 * 8 - 1;

// Memory runs from address 0 without a hole, below the local APIC.
inline constexpr uint64_t kMemoryBytesMin = uint64_t{64} << 20;
inline constexpr uint64_t kMemoryBytesMax = uint64_t{3} << 30;

struct LinuxKernel {
  setup_header header{};
  std::vector<std::byte> code;  // the protected-mode part
};

// Errors: kInvalidArgument when the file is no bzImage of this protocol.
absl::StatusOr<LinuxKernel> ParseBzImage(std::span<const std::byte> file);

// Places all in `memory`, which is zero.
// REQUIRES: kMemoryBytesMin to kMemoryBytesMax bytes.
// Errors: kInvalidArgument when something finds no room.
absl::StatusOr<BootEntry> PlaceLinux(std::span<std::byte> memory, const LinuxKernel& kernel,
                                     std::span<const std::byte> initrd,
                                     const std::string& command_line, uint32_t processors);

}  // namespace vmbfs::test_vmm
