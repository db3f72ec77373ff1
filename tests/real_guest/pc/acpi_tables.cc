// Source: ACPI 6.5 sections 5.2.5 to 5.2.12 and 20.2 (AML); offsets are theirs.
#include "tests/real_guest/pc/acpi_tables.h"

#include <cstring>
#include <initializer_list>
#include <span>
#include <string_view>

namespace vmbfs::test_vmm {
namespace {

// Where the tables lie behind the first, the RSDP; the MADT has a length of its own.
constexpr uint64_t kFacs = 0x40;
constexpr uint64_t kDsdt = 0x80;
constexpr uint64_t kXsdt = 0x100;
constexpr uint64_t kFadt = 0x140;
constexpr uint64_t kMadt = 0x280;

constexpr size_t kHeaderBytes = 36;  // of every table but the RSDP and the FACS
constexpr size_t kRsdpBytes = 36;
constexpr size_t kFacsBytes = 64;
constexpr size_t kFadtBytes = 268;
constexpr uint32_t kLocalApicAddress = 0xfee00000;

using Bytes = std::vector<uint8_t>;

// AML behind the DSDT's header:
//   Name (\_S5, Package () { 5, 0, 0, 0 })
//   Scope (\_SB) {
//     Device (VMBS) {
//       Name (_HID, "VMBUS")
//       Name (_CRS, ResourceTemplate () {})
//     }
//   }
const Bytes kAml = {
    // clang-format off
    0x08, '_', 'S', '5', '_',               // Name (_S5_,
    0x12, 0x07, 0x04,                       //   Package of 4, 7 bytes long,
    0x0a, kSleepTypeOff, 0x00, 0x00, 0x00,  //     5, 0, 0, 0)
    0x10, 0x23, '_', 'S', 'B', '_',         // Scope (_SB_), 35 bytes long
    0x5b, 0x82, 0x1c, 'V', 'M', 'B', 'S',   // Device (VMBS), 28 bytes long
    0x08, '_', 'H', 'I', 'D',               // Name (_HID,
    0x0d, 'V', 'M', 'B', 'U', 'S', 0x00,    //   "VMBUS")
    0x08, '_', 'C', 'R', 'S',               // Name (_CRS,
    0x11, 0x05, 0x0a, 0x02, 0x79, 0x00,     //   Buffer of 2, 5 bytes long: the end tag)
    // clang-format on
};

struct Field {
  size_t offset;
  size_t bytes;
  uint64_t value;
};

void Set(Bytes& table, std::initializer_list<Field> fields) {
  for (const Field& field : fields) std::memcpy(&table[field.offset], &field.value, field.bytes);
}
void SetText(Bytes& table, size_t offset, std::string_view text) {
  std::memcpy(&table[offset], text.data(), text.size());
}
// Makes the sum of the first bytes zero.
void SetChecksum(Bytes& table, size_t offset, size_t bytes) {
  uint8_t sum = 0;
  for (const uint8_t byte : std::span(table).first(bytes)) sum = static_cast<uint8_t>(sum + byte);
  table[offset] = static_cast<uint8_t>(-sum);
}

// A table with the usual header, `bytes` long and zero where no field is, and `more` behind.
Bytes MakeTable(std::string_view signature, uint8_t revision, size_t bytes,
                std::initializer_list<Field> fields, const Bytes& more = {}) {
  Bytes table(bytes);
  Set(table, fields);
  table.insert(table.end(), more.begin(), more.end());
  SetText(table, 0, signature);
  SetText(table, 10, "VMBFS TESTVMM ");  // OEM and its table
  SetText(table, 28, "VMBF");            // what made it
  Set(table, {{4, 4, table.size()}, {8, 1, revision}, {24, 4, 1}, {32, 4, 1}});
  SetChecksum(table, 9, table.size());
  return table;
}

Bytes MakeRsdp(uint64_t gpa) {
  Bytes rsdp(kRsdpBytes);
  SetText(rsdp, 0, "RSD PTR ");
  SetText(rsdp, 9, "VMBFS ");
  Set(rsdp, {{15, 1, 2}, {20, 4, kRsdpBytes}, {24, 8, gpa + kXsdt}});  // revision 2
  SetChecksum(rsdp, 8, 20);  // of what revision 0 had, then of all
  SetChecksum(rsdp, 32, kRsdpBytes);
  return rsdp;
}

Bytes MakeFacs() {
  Bytes facs(kFacsBytes);
  SetText(facs, 0, "FACS");
  Set(facs, {{4, 4, kFacsBytes}});
  return facs;
}

Bytes MakeFadt(uint64_t gpa) {
  return MakeTable("FACP", 5, kFadtBytes,
                   {{36, 4, gpa + kFacs},
                    {40, 4, gpa + kDsdt},
                    {46, 2, 9},                  // interrupt of events; there are none
                    {56, 4, kPowerEventPort},    // PM1a events, 4 bytes
                    {64, 4, kPowerControlPort},  // PM1a control, 2 bytes
                    {88, 1, 4},
                    {89, 1, 2},
                    {96, 2, 101},               // latencies that say: no C2
                    {98, 2, 1001},              // and no C3
                    {109, 2, 1 << 2 | 1 << 5},  // no VGA, no CMOS clock; and no 8042
                    // WBINVD works; buttons are no fixed events; there is a reset register.
                    {112, 4, 1 << 0 | 1 << 4 | 1 << 5 | 1 << 10},
                    {116, 1, 1},  // the reset register is a port
                    {117, 1, 8},  // of 8 bits
                    {120, 8, kResetPort},
                    {128, 1, kResetValue},
                    {140, 8, gpa + kDsdt}});
}

Bytes MakeMadt(uint32_t processors) {
  Bytes entries;
  for (uint32_t processor = 0; processor < processors; ++processor) {
    // A local APIC: type, length, processor, APIC id, enabled.
    const auto id = static_cast<uint8_t>(processor);
    entries.insert(entries.end(), {0, 8, id, id, 1, 0, 0, 0});
  }
  // The I/O APIC: type, length, id, at 0xfec00000, first interrupt.
  entries.insert(entries.end(), {1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0});
  return MakeTable("APIC", 4, 44, {{36, 4, kLocalApicAddress}}, entries);
}

}  // namespace

std::vector<std::byte> MakeAcpiTables(uint64_t gpa, uint32_t processors) {
  const Bytes xsdt =
      MakeTable("XSDT", 1, kHeaderBytes + 2 * 8, {{36, 8, gpa + kFadt}, {44, 8, gpa + kMadt}});
  const Bytes madt = MakeMadt(processors);
  std::vector<std::byte> tables(kMadt + madt.size());
  const auto put = [&](uint64_t offset, const Bytes& table) {
    std::memcpy(&tables[offset], table.data(), table.size());
  };
  put(0, MakeRsdp(gpa));
  put(kFacs, MakeFacs());
  put(kDsdt, MakeTable("DSDT", 2, kHeaderBytes, {}, kAml));
  put(kXsdt, xsdt);
  put(kFadt, MakeFadt(gpa));
  put(kMadt, madt);
  return tables;
}

}  // namespace vmbfs::test_vmm
