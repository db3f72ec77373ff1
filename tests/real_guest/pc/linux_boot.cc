#include "tests/real_guest/pc/linux_boot.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "tests/real_guest/pc/acpi_tables.h"

namespace vmbfs::test_vmm {
namespace {

// Below 1 MiB; all but the tables is free again once the kernel runs.
constexpr uint64_t kDescriptorTable = 0x6000;
constexpr uint64_t kBootParameters = 0x7000;
constexpr uint64_t kPageTable = 0x8000;  // 6 pages
constexpr uint64_t kCommandLine = 0x10000;
constexpr uint64_t kCommandLineBytesMax = 4096;
constexpr uint64_t kLowMemoryEnd = 0x9fc00;
constexpr uint64_t kAcpiTables = 0xe0000;  // where a kernel looks for them
constexpr uint64_t kHighMemory = 0x100000;

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kHeaderOffset = 0x1f1;
constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kEntry64Offset = 0x200;
constexpr uint16_t kBootFlag = 0xaa55;
constexpr uint32_t kHeaderMagic = 0x53726448;  // "HdrS"
constexpr uint16_t kProtocolMin = 0x020c;      // the first with XLF_KERNEL_64
constexpr uint8_t kUnregisteredLoader = 0xff;
constexpr uint32_t kUsableMemory = 1;

static_assert(sizeof(boot_params) == kPageBytes);
static_assert(offsetof(boot_params, hdr) == kHeaderOffset);
static_assert(offsetof(boot_params, e820_table) == 0x2d0);

// REQUIRES: there is room.
void Put(std::span<std::byte> memory, uint64_t gpa, std::span<const std::byte> bytes) {
  if (!bytes.empty()) std::memcpy(&memory[gpa], bytes.data(), bytes.size());
}

// The first 4 GiB at their own addresses, by pages of 2 MiB.
void PutPageTable(std::span<std::byte> memory) {
  constexpr uint64_t kPresentWritable = 3;
  constexpr uint64_t kLargePage = 0x80;
  constexpr size_t kEntries = 512;
  std::vector<uint64_t> entries(6 * kEntries);
  entries[0] = (kPageTable + kPageBytes) | kPresentWritable;
  for (uint64_t gigabyte = 0; gigabyte < 4; ++gigabyte) {
    entries[kEntries + gigabyte] = (kPageTable + (2 + gigabyte) * kPageBytes) | kPresentWritable;
  }
  for (uint64_t page = 0; page < 4 * kEntries; ++page) {
    entries[2 * kEntries + page] = page << 21 | kLargePage | kPresentWritable;
  }
  Put(memory, kPageTable, std::as_bytes(std::span(entries)));
}

void PutDescriptorTable(std::span<std::byte> memory) {
  // None, none, 64-bit code, data: each flat and of ring 0.
  constexpr std::array<uint64_t, 4> kDescriptors = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff};
  Put(memory, kDescriptorTable, std::as_bytes(std::span(kDescriptors)));
}

}  // namespace

absl::StatusOr<LinuxKernel> ParseBzImage(std::span<const std::byte> file) {
  LinuxKernel kernel;
  // The header ends where the jump at its beginning leads.
  constexpr uint64_t kJumpTargetOffset = 0x201;
  if (file.size() < kHeaderOffset + sizeof(kernel.header)) {
    return absl::InvalidArgumentError("kernel: shorter than the header of a bzImage");
  }
  const uint64_t header_end =
      kJumpTargetOffset + 1 + std::to_integer<uint64_t>(file[kJumpTargetOffset]);
  const uint64_t header_bytes = std::min(header_end - kHeaderOffset, sizeof(kernel.header));
  std::memcpy(&kernel.header, &file[kHeaderOffset], header_bytes);
  if (kernel.header.boot_flag != kBootFlag || kernel.header.header != kHeaderMagic) {
    return absl::InvalidArgumentError("kernel: no bzImage");
  }
  if (kernel.header.version < kProtocolMin || (kernel.header.xloadflags & XLF_KERNEL_64) == 0) {
    return absl::InvalidArgumentError("kernel: no 64-bit kernel of boot protocol 2.12");
  }
  const uint64_t setup_sectors = kernel.header.setup_sects == 0 ? 4 : kernel.header.setup_sects;
  const uint64_t code_offset = (1 + setup_sectors) * kSectorBytes;
  if (file.size() <= code_offset + kEntry64Offset) {
    return absl::InvalidArgumentError("kernel: cut off behind its setup code");
  }
  const std::span<const std::byte> code = file.subspan(code_offset);
  kernel.code.assign(code.begin(), code.end());
  return kernel;
}

absl::StatusOr<BootEntry> PlaceLinux(std::span<std::byte> memory, const LinuxKernel& kernel,
                                     std::span<const std::byte> initrd,
                                     const std::string& command_line, uint32_t processors) {
  const setup_header& header = kernel.header;
  const uint64_t kernel_bytes = std::max<uint64_t>(header.init_size, kernel.code.size());
  if (header.pref_address < kHighMemory || header.pref_address >= memory.size() ||
      kernel_bytes > memory.size() - header.pref_address) {
    return absl::InvalidArgumentError(
        absl::StrCat("kernel: no room for its ", kernel_bytes, " bytes at ", header.pref_address));
  }
  const uint64_t kernel_end = header.pref_address + kernel_bytes;
  const uint64_t initrd_limit = std::min<uint64_t>(memory.size(), header.initrd_addr_max);
  if (initrd_limit < kernel_end || initrd.size() > initrd_limit - kernel_end ||
      (initrd_limit - initrd.size()) / kPageBytes * kPageBytes < kernel_end) {
    return absl::InvalidArgumentError("initrd: no room for it behind the kernel");
  }
  const uint64_t initrd_gpa = (initrd_limit - initrd.size()) / kPageBytes * kPageBytes;
  if (command_line.size() >= kCommandLineBytesMax || command_line.size() > header.cmdline_size) {
    return absl::InvalidArgumentError("the command line is too long for the kernel");
  }

  Put(memory, header.pref_address, kernel.code);
  Put(memory, initrd_gpa, initrd);
  Put(memory, kCommandLine, std::as_bytes(std::span(command_line)));  // a zero is behind it
  Put(memory, kAcpiTables, MakeAcpiTables(kAcpiTables, processors));
  PutPageTable(memory);
  PutDescriptorTable(memory);

  boot_params parameters{};
  parameters.hdr = header;
  parameters.hdr.type_of_loader = kUnregisteredLoader;
  parameters.hdr.cmd_line_ptr = kCommandLine;
  parameters.hdr.ramdisk_image = static_cast<uint32_t>(initrd_gpa);
  parameters.hdr.ramdisk_size = static_cast<uint32_t>(initrd.size());
  parameters.acpi_rsdp_addr = kAcpiTables;
  parameters.e820_entries = 2;
  parameters.e820_table[0] = {.addr = 0, .size = kLowMemoryEnd, .type = kUsableMemory};
  parameters.e820_table[1] = {
      .addr = kHighMemory, .size = memory.size() - kHighMemory, .type = kUsableMemory};
  Put(memory, kBootParameters, std::as_bytes(std::span(&parameters, 1)));
  return BootEntry{.instruction = header.pref_address + kEntry64Offset,
                   .boot_parameters = kBootParameters,
                   .page_table = kPageTable,
                   .descriptor_table = kDescriptorTable};
}

}  // namespace vmbfs::test_vmm
