#include "core/hive/security_descriptor.h"

#include <algorithm>
#include <bit>
#include <boost/endian/buffers.hpp>
#include <cstdint>
#include <optional>

#include "absl/strings/str_cat.h"

namespace vmbfs::hive {
namespace {

using boost::endian::little_uint16_buf_t;
using boost::endian::little_uint32_buf_t;
using boost::endian::little_uint8_buf_t;

constexpr uint16_t kSelfRelative = 0x8000;
constexpr uint16_t kDaclPresent = 0x0004;
constexpr uint16_t kSaclPresent = 0x0010;
constexpr uint8_t kAccessAllowed = 0;
constexpr uint8_t kContainerInherit = 0x02;
constexpr uint8_t kAclRevision = 2;
constexpr uint8_t kAclRevisionMax = 4;
constexpr uint32_t kFullAccess = 0x000F003F;
constexpr uint32_t kReadAccess = 0x00020019;
constexpr size_t kSubauthoritiesMax = 15;

struct DescriptorHeader {
  little_uint8_buf_t revision;
  little_uint8_buf_t reserved;
  little_uint16_buf_t control;
  little_uint32_buf_t owner_offset;
  little_uint32_buf_t group_offset;
  little_uint32_buf_t sacl_offset;
  little_uint32_buf_t dacl_offset;
};
static_assert(sizeof(DescriptorHeader) == 20 && alignof(DescriptorHeader) == 1);
static_assert(offsetof(DescriptorHeader, control) == 2);
static_assert(offsetof(DescriptorHeader, owner_offset) == 4);
static_assert(offsetof(DescriptorHeader, group_offset) == 8);
static_assert(offsetof(DescriptorHeader, sacl_offset) == 12);
static_assert(offsetof(DescriptorHeader, dacl_offset) == 16);

struct AclHeader {
  little_uint8_buf_t revision;
  little_uint8_buf_t reserved;
  little_uint16_buf_t bytes;
  little_uint16_buf_t entry_count;
  little_uint16_buf_t reserved_too;
};
static_assert(sizeof(AclHeader) == 8 && alignof(AclHeader) == 1);
static_assert(offsetof(AclHeader, bytes) == 2 && offsetof(AclHeader, entry_count) == 4);

struct AceHeader {
  little_uint8_buf_t type;
  little_uint8_buf_t flags;
  little_uint16_buf_t bytes;
  little_uint32_buf_t access;
};
static_assert(sizeof(AceHeader) == 8 && alignof(AceHeader) == 1);
static_assert(offsetof(AceHeader, bytes) == 2 && offsetof(AceHeader, access) == 4);

struct SidHeader {
  little_uint8_buf_t revision;
  little_uint8_buf_t subauthority_count;
  boost::endian::big_uint48_buf_t authority;
};
static_assert(sizeof(SidHeader) == 8 && alignof(SidHeader) == 1);
static_assert(offsetof(SidHeader, authority) == 2);

// Appends to a buffer of fixed size.
class Builder {
 public:
  template <typename Wire>
  void Add(const Wire& wire) {
    const auto bytes = std::bit_cast<std::array<std::byte, sizeof(Wire)>>(wire);
    std::copy(bytes.begin(), bytes.end(), buffer_.begin() + static_cast<ptrdiff_t>(size_));
    size_ += bytes.size();
  }

  // S-1-AUTHORITY-…; at most two sub-authorities here.
  void AddSid(uint64_t authority, std::span<const uint32_t> subauthorities) {
    SidHeader header;
    header.revision = uint8_t{1};
    header.subauthority_count = static_cast<uint8_t>(subauthorities.size());
    header.authority = authority;
    Add(header);
    for (const uint32_t subauthority : subauthorities) Add(little_uint32_buf_t(subauthority));
  }

  void AddAccess(uint32_t access, uint64_t authority, std::span<const uint32_t> subauthorities) {
    AceHeader header;
    header.type = kAccessAllowed;
    header.flags = kContainerInherit;
    header.bytes = static_cast<uint16_t>(sizeof(header) + sizeof(SidHeader) +
                                         subauthorities.size() * sizeof(uint32_t));
    header.access = access;
    Add(header);
    AddSid(authority, subauthorities);
  }

  size_t size() const { return size_; }
  const std::array<std::byte, kSecurityDescriptorBytes>& buffer() const { return buffer_; }

 private:
  std::array<std::byte, kSecurityDescriptorBytes> buffer_{};
  size_t size_ = 0;
};

// The structure at `offset`; nullopt when it does not lie within.
template <typename Wire>
std::optional<Wire> At(std::span<const std::byte> bytes, size_t offset) {
  if (offset > bytes.size() || bytes.size() - offset < sizeof(Wire)) return std::nullopt;
  std::array<std::byte, sizeof(Wire)> copy;
  std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(offset), sizeof(Wire), copy.begin());
  return std::bit_cast<Wire>(copy);
}

bool IsSidAt(std::span<const std::byte> bytes, size_t offset) {
  const auto sid = At<SidHeader>(bytes, offset);
  if (!sid.has_value() || sid->revision.value() != 1) return false;
  const size_t count = sid->subauthority_count.value();
  return count <= kSubauthoritiesMax &&
         bytes.size() - offset - sizeof(SidHeader) >= count * sizeof(uint32_t);
}

absl::Status CheckAcl(std::span<const std::byte> descriptor, size_t offset, const char* name) {
  const auto refuse = [name](const char* why) {
    return absl::InvalidArgumentError(absl::StrCat("its ", name, " ", why));
  };
  const auto header = At<AclHeader>(descriptor, offset);
  if (!header.has_value()) return refuse("lies outside");
  const uint8_t revision = header->revision.value();
  if (revision < kAclRevision || revision > kAclRevisionMax) return refuse("has another revision");
  const size_t acl_bytes = header->bytes.value();
  if (acl_bytes < sizeof(AclHeader) || acl_bytes > descriptor.size() - offset) {
    return refuse("has a size that does not fit");
  }
  const std::span<const std::byte> acl = descriptor.subspan(offset, acl_bytes);
  size_t position = sizeof(AclHeader);
  for (size_t i = 0; i < header->entry_count.value(); ++i) {
    const auto ace = At<AceHeader>(acl, position);
    if (!ace.has_value()) return refuse("has an entry outside");
    const size_t ace_bytes = ace->bytes.value();
    if (ace_bytes < sizeof(AceHeader) || ace_bytes > acl_bytes - position) {
      return refuse("has an entry whose size does not fit");
    }
    position += ace_bytes;
  }
  return absl::OkStatus();
}

}  // namespace

std::array<std::byte, kSecurityDescriptorBytes> MakeSecurityDescriptor() {
  static constexpr uint64_t kWorld = 1;
  static constexpr uint64_t kNt = 5;
  static constexpr std::array<uint32_t, 1> kEveryone = {0};
  static constexpr std::array<uint32_t, 1> kRestricted = {12};
  static constexpr std::array<uint32_t, 1> kSystem = {18};
  static constexpr std::array<uint32_t, 2> kAdministrators = {32, 544};
  static constexpr size_t kDaclBytes = 0x5C;
  static constexpr size_t kOwnerOffset = sizeof(DescriptorHeader) + kDaclBytes;
  static constexpr size_t kGroupOffset = kOwnerOffset + sizeof(SidHeader) + 2 * sizeof(uint32_t);

  DescriptorHeader header;
  header.revision = uint8_t{1};
  header.reserved = uint8_t{0};
  header.control = uint16_t{kSelfRelative | kDaclPresent};
  header.owner_offset = static_cast<uint32_t>(kOwnerOffset);
  header.group_offset = static_cast<uint32_t>(kGroupOffset);
  header.sacl_offset = uint32_t{0};
  header.dacl_offset = static_cast<uint32_t>(sizeof(DescriptorHeader));
  AclHeader dacl;
  dacl.revision = kAclRevision;
  dacl.reserved = uint8_t{0};
  dacl.bytes = static_cast<uint16_t>(kDaclBytes);
  dacl.entry_count = uint16_t{4};
  dacl.reserved_too = uint16_t{0};

  Builder builder;
  builder.Add(header);
  builder.Add(dacl);
  builder.AddAccess(kFullAccess, kNt, kSystem);
  builder.AddAccess(kFullAccess, kNt, kAdministrators);
  builder.AddAccess(kReadAccess, kWorld, kEveryone);
  builder.AddAccess(kReadAccess, kNt, kRestricted);
  builder.AddSid(kNt, kAdministrators);
  builder.AddSid(kNt, kAdministrators);
  return builder.buffer();
}

absl::Status CheckSecurityDescriptor(std::span<const std::byte> descriptor) {
  const auto header = At<DescriptorHeader>(descriptor, 0);
  if (!header.has_value()) return absl::InvalidArgumentError("it is too short");
  if (header->revision.value() != 1) return absl::InvalidArgumentError("it has another revision");
  const uint16_t control = header->control.value();
  if ((control & kSelfRelative) == 0) return absl::InvalidArgumentError("it is not self-relative");
  for (const uint32_t sid : {header->owner_offset.value(), header->group_offset.value()}) {
    if (sid != 0 && !IsSidAt(descriptor, sid)) {
      return absl::InvalidArgumentError("its owner or group is no SID");
    }
  }
  if ((control & kDaclPresent) != 0 && header->dacl_offset.value() != 0) {
    if (auto status = CheckAcl(descriptor, header->dacl_offset.value(), "DACL"); !status.ok()) {
      return status;
    }
  }
  if ((control & kSaclPresent) != 0 && header->sacl_offset.value() != 0) {
    return CheckAcl(descriptor, header->sacl_offset.value(), "SACL");
  }
  return absl::OkStatus();
}

}  // namespace vmbfs::hive
