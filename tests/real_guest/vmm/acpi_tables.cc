// Source: ACPI 6.5 sections 5.2.5 to 5.2.12 and 20.2 (AML).
#include "tests/real_guest/vmm/acpi_tables.h"

#include <array>
#include <boost/endian/buffers.hpp>
#include <cstring>
#include <span>
#include <string_view>

namespace vmbfs::test_vmm {
namespace {

using U8 = boost::endian::little_uint8_buf_t;
using U16 = boost::endian::little_uint16_buf_t;
using U32 = boost::endian::little_uint32_buf_t;
using U64 = boost::endian::little_uint64_buf_t;

struct Rsdp {
  char signature[8];
  U8 checksum;  // of the first 20 bytes
  char oem_id[6];
  U8 revision;
  U32 rsdt;
  U32 length;
  U64 xsdt;
  U8 extended_checksum;  // of all
  U8 reserved[3];
};
static_assert(sizeof(Rsdp) == 36 && offsetof(Rsdp, checksum) == 8);
static_assert(offsetof(Rsdp, xsdt) == 24 && offsetof(Rsdp, extended_checksum) == 32);

struct TableHeader {
  char signature[4];
  U32 length;
  U8 revision;
  U8 checksum;
  char oem_id[6];
  char oem_table_id[8];
  U32 oem_revision;
  char creator_id[4];
  U32 creator_revision;
};
static_assert(sizeof(TableHeader) == 36 && offsetof(TableHeader, checksum) == 9);

struct Xsdt {
  TableHeader header;
  U64 tables[2];
};
static_assert(sizeof(Xsdt) == 52);

struct GenericAddress {
  U8 space;
  U8 bits;
  U8 offset;
  U8 access_size;
  U64 address;
};

// The fields that this machine has; the others are zero.
struct Fadt {
  TableHeader header;
  U32 facs;
  U32 dsdt;
  U8 unused_44[2];
  U16 sci_interrupt;
  U8 unused_48[8];
  U32 pm1a_event_block;
  U8 unused_60[4];
  U32 pm1a_control_block;
  U8 unused_68[20];
  U8 pm1_event_bytes;
  U8 pm1_control_bytes;
  U8 unused_90[6];
  U16 c2_latency;
  U16 c3_latency;
  U8 unused_100[9];
  U16 boot_architecture;
  U8 unused_111;
  U32 flags;
  GenericAddress reset_register;
  U8 reset_value;
  U8 unused_129[3];
  U64 extended_facs;
  U64 extended_dsdt;
  U8 unused_148[120];
};
static_assert(sizeof(Fadt) == 268 && offsetof(Fadt, sci_interrupt) == 46);
static_assert(offsetof(Fadt, pm1a_event_block) == 56 && offsetof(Fadt, pm1a_control_block) == 64);
static_assert(offsetof(Fadt, pm1_event_bytes) == 88 && offsetof(Fadt, c2_latency) == 96);
static_assert(offsetof(Fadt, boot_architecture) == 109 && offsetof(Fadt, flags) == 112);
static_assert(offsetof(Fadt, reset_register) == 116 && offsetof(Fadt, extended_dsdt) == 140);

constexpr uint8_t kSciInterrupt = 9;
constexpr uint16_t kNoC2 = 101;                      // latencies that say: not there
constexpr uint16_t kNoC3 = 1001;
constexpr uint16_t kBootArchitecture = 1 << 2 | 1 << 5;  // no VGA, no CMOS clock; no 8042
constexpr uint32_t kFadtFlags = 1 << 0 | 1 << 4 | 1 << 5 | 1 << 10;  // WBINVD, no fixed buttons, reset
constexpr uint8_t kPortSpace = 1;

struct Facs {
  char signature[4];
  U32 length;
  U8 unused_8[56];
};
static_assert(sizeof(Facs) == 64);

struct Madt {
  TableHeader header;
  U32 local_apic;
  U32 flags;
};
struct MadtLocalApic {
  U8 type;  // 0
  U8 length;
  U8 processor_uid;
  U8 apic_id;
  U32 flags;
};
struct MadtIoApic {
  U8 type;  // 1
  U8 length;
  U8 id;
  U8 reserved;
  U32 address;
  U32 first_gsi;
};
static_assert(sizeof(Madt) == 44 && sizeof(MadtLocalApic) == 8 && sizeof(MadtIoApic) == 12);

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
    0x08, '\\', '_', 'S', '5', '_',           // Name (\_S5_,
    0x12, 0x07, 0x04,                         //   Package of 4, 7 bytes
    0x0a, kSleepTypeOff, 0x00, 0x00, 0x00,    //   5, 0, 0, 0)
    0x10, 0x24, '\\', '_', 'S', 'B', '_',     // Scope (\_SB_), 36 bytes
    0x5b, 0x82, 0x1c, 'V', 'M', 'B', 'S',     // Device (VMBS), 28 bytes
    0x08, '_', 'H', 'I', 'D',                 // Name (_HID,
    0x0d, 'V', 'M', 'B', 'U', 'S', 0x00,      //   "VMBUS")
    0x08, '_', 'C', 'R', 'S',                 // Name (_CRS,
    0x11, 0x05, 0x0a, 0x02, 0x79, 0x00,       //   Buffer of 2, 5 bytes: the end tag)
});

// Appends tables to a block of memory at `gpa`.
class TableWriter {
 public:
  explicit TableWriter(uint64_t gpa) : gpa_(gpa) {}

  // Where `value` will be for the guest.
  template <typename Value>
  uint32_t Append(const Value& value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    const size_t offset = bytes_.size();
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return static_cast<uint32_t>(gpa_ + offset);
  }

  // Space to the next multiple of `alignment`.
  void Align(size_t alignment) {
    while (bytes_.size() % alignment != 0) bytes_.push_back(std::byte{0});
  }

  // Length and checksum of the table that began at `table` and is whole now.
  void Finish(uint32_t table) {
    const std::span<std::byte> bytes = std::span(bytes_).subspan(table - gpa_);
    U32 length;
    length = static_cast<uint32_t>(bytes.size());
    std::memcpy(&bytes[offsetof(TableHeader, length)], &length, sizeof(length));
    SetChecksum(bytes, offsetof(TableHeader, checksum));
  }

  // Makes the sum of `bytes` zero.
  static void SetChecksum(std::span<std::byte> bytes, size_t at) {
    uint8_t sum = 0;
    for (const std::byte byte : bytes) sum = static_cast<uint8_t>(sum + static_cast<uint8_t>(byte));
    bytes[at] = static_cast<std::byte>(static_cast<uint8_t>(bytes[at]) - sum);
  }

  std::vector<std::byte>& bytes() { return bytes_; }

 private:
  const uint64_t gpa_;
  std::vector<std::byte> bytes_;
};

TableHeader MakeHeader(std::string_view signature, uint8_t revision) {
  TableHeader header{};
  signature.copy(header.signature, sizeof(header.signature));
  header.revision = revision;
  std::memcpy(header.oem_id, "VMBFS ", sizeof(header.oem_id));
  std::memcpy(header.oem_table_id, "TESTVMM ", sizeof(header.oem_table_id));
  header.oem_revision = 1;
  std::memcpy(header.creator_id, "VMBF", sizeof(header.creator_id));
  header.creator_revision = 1;
  return header;
}

uint32_t AppendDsdt(TableWriter& writer) {
  const uint32_t dsdt = writer.Append(MakeHeader("DSDT", 2));
  writer.Append(kAml);
  writer.Finish(dsdt);
  return dsdt;
}

uint32_t AppendFacs(TableWriter& writer) {
  Facs facs{};
  std::memcpy(facs.signature, "FACS", sizeof(facs.signature));
  facs.length = sizeof(facs);
  writer.Align(64);
  return writer.Append(facs);
}

uint32_t AppendFadt(TableWriter& writer, uint32_t facs, uint32_t dsdt) {
  Fadt fadt{};
  fadt.header = MakeHeader("FACP", 5);
  fadt.facs = facs;
  fadt.dsdt = dsdt;
  fadt.sci_interrupt = kSciInterrupt;
  fadt.pm1a_event_block = kPowerEventPort;
  fadt.pm1a_control_block = kPowerControlPort;
  fadt.pm1_event_bytes = 4;
  fadt.pm1_control_bytes = 2;
  fadt.c2_latency = kNoC2;
  fadt.c3_latency = kNoC3;
  fadt.boot_architecture = kBootArchitecture;
  fadt.flags = kFadtFlags;
  fadt.reset_register.space = kPortSpace;
  fadt.reset_register.bits = 8;
  fadt.reset_register.address = kResetPort;
  fadt.reset_value = kResetValue;
  fadt.extended_dsdt = dsdt;
  const uint32_t at = writer.Append(fadt);
  writer.Finish(at);
  return at;
}

uint32_t AppendMadt(TableWriter& writer, uint32_t processors) {
  Madt madt{};
  madt.header = MakeHeader("APIC", 4);
  madt.local_apic = kLocalApicAddress;
  const uint32_t at = writer.Append(madt);
  for (uint32_t processor = 0; processor < processors; ++processor) {
    MadtLocalApic apic{};
    apic.length = sizeof(apic);
    apic.processor_uid = static_cast<uint8_t>(processor);
    apic.apic_id = static_cast<uint8_t>(processor);
    apic.flags = 1;  // enabled
    writer.Append(apic);
  }
  MadtIoApic io_apic{};
  io_apic.type = 1;
  io_apic.length = sizeof(io_apic);
  io_apic.address = kIoApicAddress;
  writer.Append(io_apic);
  writer.Finish(at);
  return at;
}

}  // namespace

std::vector<std::byte> MakeAcpiTables(uint64_t gpa, uint32_t processors) {
  TableWriter writer(gpa);
  writer.Append(Rsdp{});  // filled in when it is known where the XSDT is
  const uint32_t dsdt = AppendDsdt(writer);
  const uint32_t facs = AppendFacs(writer);
  const uint32_t fadt = AppendFadt(writer, facs, dsdt);
  const uint32_t madt = AppendMadt(writer, processors);
  Xsdt xsdt{};
  xsdt.header = MakeHeader("XSDT", 1);
  xsdt.tables[0] = fadt;
  xsdt.tables[1] = madt;
  const uint32_t xsdt_at = writer.Append(xsdt);
  writer.Finish(xsdt_at);

  Rsdp rsdp{};
  std::memcpy(rsdp.signature, "RSD PTR ", sizeof(rsdp.signature));
  std::memcpy(rsdp.oem_id, "VMBFS ", sizeof(rsdp.oem_id));
  rsdp.revision = 2;
  rsdp.length = sizeof(rsdp);
  rsdp.xsdt = xsdt_at;
  const std::span<std::byte> bytes = std::span(writer.bytes()).first(sizeof(rsdp));
  std::memcpy(bytes.data(), &rsdp, sizeof(rsdp));
  TableWriter::SetChecksum(bytes.first(20), offsetof(Rsdp, checksum));
  TableWriter::SetChecksum(bytes, offsetof(Rsdp, extended_checksum));
  return std::move(writer.bytes());
}

}  // namespace vmbfs::test_vmm
