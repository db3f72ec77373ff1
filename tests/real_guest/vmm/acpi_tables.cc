// Source: ACPI 6.5 sections 5.2.5 to 5.2.12 and 20.2 (AML); offsets are theirs.
#include "tests/real_guest/vmm/acpi_tables.h"

#include <array>
#include <boost/endian/conversion.hpp>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

namespace vmbfs::test_vmm {
namespace {

constexpr size_t kHeaderBytes = 36;  // of every table but the RSDP and the FACS
constexpr size_t kLengthOffset = 4;  // in the header, as the next
constexpr size_t kChecksumOffset = 9;
constexpr uint32_t kLocalApicAddress = 0xfee00000;
constexpr uint32_t kIoApicAddress = 0xfec00000;

// AML behind the DSDT's header:
//   Name (\_S5, Package () { 5, 0, 0, 0 })
//   Scope (\_SB) {
//     Device (VMBS) {
//       Name (_HID, "VMBUS")
//       Name (_CRS, ResourceTemplate () {})
//     }
//   }
constexpr auto kAml = std::to_array<uint8_t>({
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
});

// Tables one behind another, filled in field by field; the rest is zero.
class TableWriter {
 public:
  explicit TableWriter(uint64_t gpa) : gpa_(gpa) {}

  // Begins a table of so many bytes, more of which may follow; gives its address.
  uint32_t Begin(size_t bytes) {
    table_ = bytes_.size();
    bytes_.resize(table_ + bytes);
    return static_cast<uint32_t>(gpa_ + table_);
  }
  uint32_t BeginWithHeader(std::string_view signature, uint8_t revision, size_t bytes) {
    const uint32_t address = Begin(bytes);
    SetText(0, signature);
    Set<uint8_t>(8, revision);
    SetText(10, "VMBFS ");    // OEM
    SetText(16, "TESTVMM ");  // its table
    Set<uint32_t>(24, 1);     // and revision
    SetText(28, "VMBF");      // what made it
    Set<uint32_t>(32, 1);
    return address;
  }

  template <typename Value>
  void Set(size_t offset, Value value) {
    boost::endian::native_to_little_inplace(value);
    std::memcpy(&bytes_[table_ + offset], &value, sizeof(value));
  }
  void SetText(size_t offset, std::string_view text) {
    std::memcpy(&bytes_[table_ + offset], text.data(), text.size());
  }
  void Append(std::span<const uint8_t> more) {
    for (const uint8_t byte : more) bytes_.push_back(static_cast<std::byte>(byte));
  }
  void Align(size_t alignment) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
  }

  // The table that began last is whole.
  void Finish() {
    const size_t bytes = bytes_.size() - table_;
    Set(kLengthOffset, static_cast<uint32_t>(bytes));
    SetChecksum(kChecksumOffset, bytes);
  }
  // Makes the sum of the table's first bytes zero.
  void SetChecksum(size_t offset, size_t bytes) {
    uint8_t sum = 0;
    for (size_t index = 0; index < bytes; ++index) {
      sum = static_cast<uint8_t>(sum + std::to_integer<uint8_t>(bytes_[table_ + index]));
    }
    Set(offset, static_cast<uint8_t>(-sum));
  }
  // Goes back to the first.
  void Rewind() { table_ = 0; }
  std::vector<std::byte> Take() { return std::move(bytes_); }

 private:
  const uint64_t gpa_;
  std::vector<std::byte> bytes_;
  size_t table_ = 0;  // the one that began last
};

uint32_t AppendDsdt(TableWriter& writer) {
  const uint32_t dsdt = writer.BeginWithHeader("DSDT", 2, kHeaderBytes);
  writer.Append(kAml);
  writer.Finish();
  return dsdt;
}

uint32_t AppendFacs(TableWriter& writer) {
  writer.Align(64);
  const uint32_t facs = writer.Begin(64);
  writer.SetText(0, "FACS");
  writer.Set<uint32_t>(kLengthOffset, 64);
  return facs;
}

uint32_t AppendFadt(TableWriter& writer, uint32_t facs, uint32_t dsdt) {
  const uint32_t fadt = writer.BeginWithHeader("FACP", 5, 268);
  writer.Set<uint32_t>(36, facs);
  writer.Set<uint32_t>(40, dsdt);
  writer.Set<uint16_t>(46, 9);                  // interrupt of events; there are none
  writer.Set<uint32_t>(56, kPowerEventPort);    // PM1a events
  writer.Set<uint32_t>(64, kPowerControlPort);  // PM1a control
  writer.Set<uint8_t>(88, 4);                   // their lengths
  writer.Set<uint8_t>(89, 2);
  writer.Set<uint16_t>(96, 101);               // latencies that say: no C2
  writer.Set<uint16_t>(98, 1001);              // and no C3
  writer.Set<uint16_t>(109, 1 << 2 | 1 << 5);  // no VGA, no CMOS clock; and no 8042
  // WBINVD works; buttons are no fixed events; there is a reset register.
  writer.Set<uint32_t>(112, 1 << 0 | 1 << 4 | 1 << 5 | 1 << 10);
  writer.Set<uint8_t>(116, 1);  // the reset register is a port
  writer.Set<uint8_t>(117, 8);  // of 8 bits
  writer.Set<uint64_t>(120, kResetPort);
  writer.Set<uint8_t>(128, kResetValue);
  writer.Set<uint64_t>(140, dsdt);
  writer.Finish();
  return fadt;
}

uint32_t AppendMadt(TableWriter& writer, uint32_t processors) {
  const uint32_t madt = writer.BeginWithHeader("APIC", 4, 44);
  writer.Set<uint32_t>(36, kLocalApicAddress);
  for (uint32_t processor = 0; processor < processors; ++processor) {
    // A local APIC: type, length, processor, APIC id, enabled.
    const auto id = static_cast<uint8_t>(processor);
    writer.Append(std::to_array<uint8_t>({0, 8, id, id, 1, 0, 0, 0}));
  }
  // The I/O APIC: type, length, id, address, first interrupt.
  writer.Append(std::to_array<uint8_t>(
      {1, 12, 0, 0, 0, 0, kIoApicAddress >> 16 & 0xff, kIoApicAddress >> 24, 0, 0, 0, 0}));
  writer.Finish();
  return madt;
}

}  // namespace

std::vector<std::byte> MakeAcpiTables(uint64_t gpa, uint32_t processors) {
  constexpr size_t kRsdpBytes = 36;
  TableWriter writer(gpa);
  writer.Begin(kRsdpBytes);
  const uint32_t dsdt = AppendDsdt(writer);
  const uint32_t facs = AppendFacs(writer);
  const uint32_t fadt = AppendFadt(writer, facs, dsdt);
  const uint32_t madt = AppendMadt(writer, processors);
  const uint32_t xsdt = writer.BeginWithHeader("XSDT", 1, kHeaderBytes + 2 * 8);
  writer.Set<uint64_t>(kHeaderBytes, fadt);
  writer.Set<uint64_t>(kHeaderBytes + 8, madt);
  writer.Finish();

  writer.Rewind();
  writer.SetText(0, "RSD PTR ");
  writer.SetText(9, "VMBFS ");
  writer.Set<uint8_t>(15, 2);  // revision
  writer.Set<uint32_t>(20, kRsdpBytes);
  writer.Set<uint64_t>(24, xsdt);
  writer.SetChecksum(8, 20);  // of what revision 0 had, then of all
  writer.SetChecksum(32, kRsdpBytes);
  return writer.Take();
}

}  // namespace vmbfs::test_vmm
