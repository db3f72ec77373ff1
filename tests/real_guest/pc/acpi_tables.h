// The ACPI tables of the machine: its processors, power-off and reset, and the
// device by which a guest finds VMBus.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vmbfs::test_vmm {

// What the tables promise and the machine's ports do.
inline constexpr uint16_t kPowerEventPort = 0x600;    // PM1a event block, 4 bytes
inline constexpr uint16_t kPowerControlPort = 0x604;  // PM1a control block, 2 bytes
inline constexpr uint16_t kResetPort = 0x64;
inline constexpr uint8_t kResetValue = 0xfe;
inline constexpr uint16_t kAcpiMode = 1;           // in PM1a control: read only
inline constexpr uint16_t kSleepEnable = 1 << 13;  // in PM1a control
inline constexpr uint16_t kSleepTypeShift = 10;    // in PM1a control, three bits
inline constexpr uint16_t kSleepTypeOff = 5;       // \_S5 of the DSDT

inline constexpr uint32_t kProcessorsMax = 64;  // APIC ids of 8 bits, one table page

// All tables, one behind another and the RSDP first, as they are to lie at `gpa`.
// REQUIRES: `gpa` is a multiple of 64 below 4 GiB; 1 to kProcessorsMax processors.
std::vector<std::byte> MakeAcpiTables(uint64_t gpa, uint32_t processors);

}  // namespace vmbfs::test_vmm
